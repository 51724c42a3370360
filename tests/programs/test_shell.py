"""Shell scripts, and the classic tools on a real tree."""

from __future__ import annotations

import pytest
from inside import Compare

BASH = {
    "pipelines": """
        seq 1 1000 | grep 7 | sort -rn | head -5
        yes | head -n 3 | cat -n
        set -o pipefail; false | true; echo "pipefail $?"; true | false | true; echo "${PIPESTATUS[@]}"
        diff <(seq 3) <(seq 4) ; echo $?
        { echo out; echo err >&2; } 2>&1 | sort
        mapfile -t lines < <(printf 'a\\nb\\n'); echo "${#lines[@]} ${lines[1]}"
    """,
    "here-documents": """
        cat <<EOF
        home is $((1+2)) $(echo sub)
EOF
        cat <<'EOF'
        raw $HOME
EOF
        cat <<<"here string"; tr a-z A-Z <<< shout
        exec 5<<<"fifth"; read -u 5 word; echo $word; exec 5<&-
        big=$(seq 1 40000); wc -c <<<"$big"
    """,
    "traps": """
        trap 'echo exit trap' EXIT; trap 'echo usr1' USR1; trap 'echo term; exit 4' TERM
        kill -USR1 $$; echo after usr1
        (trap 'echo sub; exit 9' INT; kill -INT $BASHPID; echo not reached); echo "sub $?"
        sleep 30 & pid=$!; until grep -q sleep /proc/$pid/comm; do :; done; kill $pid; wait $pid; echo "killed: $?"
        trap 'echo chld' CHLD; true & wait; trap - CHLD
        kill -TERM $$; echo not reached
    """,
    "death by signal": "echo before; kill -SEGV $$; echo not reached",
    "job control": """
        set -m
        sleep 100 & jobs; until grep -q sleep /proc/$!/comm; do :; done
        kill -STOP %1; sleep 0.2; jobs; kill -CONT %1; sleep 0.2; jobs
        kill %1; wait %1; echo "ended $?"
        (exit 7) & wait $!; echo "status $?"
        sleep 0.1 & sleep 0.2 & wait -n; echo "first $?"; wait; echo all
        set -m; sh -c 'kill -STOP $$; echo resumed' & sleep 0.2; jobs; fg %1
    """,
    "descriptors": """
        cd /tmp; exec 3>log; echo three >&3; exec 3>&-; cat log
        exec 4<>rw; echo hello >&4; cat rw; exec 4>&-
        echo a >>log; echo b >>log; wc -l <log; : >|log; stat -c %s log; set -C; echo x >log; echo "noclobber $?"
        mkfifo pipe; (echo through fifo >pipe) & cat pipe; wait
        ls -l /proc/self/fd | grep -c -- '->'
        coproc cat; echo ping >&${COPROC[1]}; read -u ${COPROC[0]} answer; echo $answer
    """,
    "arithmetic, arrays and patterns": """
        declare -A map=([one]=1 [two]=2); for key in $(printf '%s\\n' "${!map[@]}" | sort); do echo $key ${map[$key]}; done
        shopt -s extglob globstar; cd /etc; echo pass@(wd|word); printf '%s\\n' **/host*.conf
        case $'a\\nb' in *$'\\n'*) echo newline;; esac; printf '%05.2f|%-5s|%q\\n' 3.14159 ab 'a b'
        f() { local n=$1; ((n <= 1)) && echo 1 || echo $((n * $(f $((n - 1))))); }; f 8
    """,
    "time, umask, ulimit and exec": """
        umask; umask 027; touch /tmp/masked; stat -c %a /tmp/masked; mkdir /tmp/dir; stat -c %a /tmp/dir
        ulimit -n 64; ulimit -n; ulimit -c 0; ulimit -Hc
        exec -a renamed bash -c 'echo $0; cat /proc/$$/cmdline | tr "\\0" " "'
    """,
    "missing commands": "no-such-command; echo $?; /etc/passwd; echo $?; /; echo $?; ./x/y; echo $?; exit 300",
}

TOOLS = {
    "coreutils on files": """
        cd /tmp; mkdir -p tree/a/b; for i in $(seq 50); do echo "line $i" >tree/a/file$i; done
        cp -a tree copy; diff -r tree copy && echo same; mv copy/a/file1 copy/moved; ls copy copy/a | head -4
        ln -s a/file2 tree/soft; ln tree/a/file3 tree/hard; readlink tree/soft; stat -c '%h %s %F' tree/hard tree/soft
        realpath tree/soft; chmod 640 tree/a/file4; chown 1000:1000 tree/a/file4; stat -c '%a %u %g' tree/a/file4
        truncate -s 100000 sparse; stat -c '%s %b' sparse; dd if=/dev/zero of=zeros bs=4k count=100 2>/dev/null; md5sum zeros
        touch -d '2001-02-03 04:05:06 UTC' dated; stat -c %Y dated; install -m 755 dated bin1; stat -c %a bin1
        split -l 10 -d <(seq 95) part; ls part*; cat part* | sha256sum; shred -u zeros; ls zeros; mktemp -d x.XXX | wc -c
        rm -rf tree copy x.???; ls; df --output=target / ; du -s --apparent-size sparse; sync; tac part09; timeout 0.2 sleep 5; echo $?
    """,
    "coreutils on text": """
        seq 100 | shuf --random-source=/etc/passwd | sort -n | uniq -c | awk '{s+=$1} END {print s}'
        cut -d: -f1,7 /etc/passwd | sort | head -3; paste <(seq 3) <(seq 4 6); join <(seq 3) <(seq 2 5)
        printf 'b 2\\na 1\\n' | sort -k2 | tee /tmp/t | wc; od -c /tmp/t; base64 /tmp/t | base64 -d; fold -w 3 <<<abcdefg
        comm <(seq 4) <(seq 3 6); tr -d 0-9 <<<a1b2; expand <<<$'a\\tb'; nl /tmp/t; factor 360; numfmt --to=iec 123456
        head -c 100000 /usr/bin/bash | cksum; seq 200000 | sort -R --random-source=/bin/ls | md5sum; tail -n 2 /etc/passwd
        date -u -d @86400 +%F; expr 3 \\* 4; test -r /etc/shadow && echo readable; nproc --all >/dev/null && echo nproc
        id; whoami; groups; tty; pwd; env | sort; printenv HOME; uname -s -m -o
    """,
    "findutils": """
        cd /usr; find share/zoneinfo/Europe -type f | sort | tail -3; find bin -name 'gre*' -printf '%f %m %y\\n' | sort
        find lib -maxdepth 1 -type l -printf '%f -> %l\\n' | sort; find /etc -newer /etc/hostname -type d | wc -l >/dev/null
        find /etc -xdev -type f -size -2k -print0 | sort -z | xargs -0 -n 20 -P 4 cat 2>/dev/null | wc -c
        find /usr/include -name 'std*.h' -exec grep -l size_t {} + | sort | head; seq 10 | xargs -n 3 echo
        mkdir -p /tmp/d/e; touch /tmp/d/{1..20}; find /tmp/d -type f -delete; find /tmp/d -empty
        find / -xdev -type f 2>/dev/null | grep -v -e '^/proc' -e '^/sys' -e '^/dev' | wc -l
    """,
    "grep, sed and gawk": """
        grep -rlE 'stdint|inttypes' /usr/include/linux | sort | head -20; grep -c '' /etc/services; grep -oP '(?<=x:)\\d+' /etc/passwd
        sed -n '1,3{s/root/toor/g;p}' /etc/passwd; cp /etc/passwd /tmp/p; sed -i.bak -e '1d' -e '$d' /tmp/p; diff /tmp/p.bak /tmp/p
        gawk -F: '{n[$7]++} END {for (s in n) print n[s], s}' /etc/passwd | sort; gawk 'BEGIN {"echo sub" | getline x; print x; print strftime("%F", 0, 1)}'
        gawk 'BEGIN { cmd = "cat"; print "co" |& cmd; close(cmd, "to"); cmd |& getline y; print y; system("echo $PPID >/dev/null; exit 3") }'; echo $?
        seq 100000 | gawk '{s+=$1} END {print s, NR}'
    """,
    "tar, gzip and xz": """
        cd /tmp; tar cf etc.tar -C / etc/apt etc/alternatives usr/share/perl5/Debconf; tar tf etc.tar | wc -l
        mkdir out; tar xf etc.tar -C out; diff -r /usr/share/perl5/Debconf out/usr/share/perl5/Debconf && echo same
        tar czf a.tgz -C out .; tar cJf a.txz -C out .; gzip -t a.tgz && xz -t a.txz && echo good; tar xOzf a.tgz ./etc/apt/sources.list.d 2>/dev/null; echo $?
        head -c 3000000 /usr/bin/gdb /usr/bin/bash 2>/dev/null | gzip -9 | gunzip | md5sum; xz -T2 -0 -c /usr/bin/perl | xz -d | cmp - /usr/bin/perl; echo $?
        ln -s nowhere dangling; ln etc.tar hard; mkfifo fifo; truncate -s 1M holes; tar cSf s.tar dangling hard etc.tar fifo holes
        mkdir o2; tar xf s.tar -C o2; stat -c '%n %F %h %s' o2/*; zcat a.tgz | head -c 0; zgrep -c x a.tgz >/dev/null; gunzip <(echo bad); echo $?
    """,
    "procps and util-linux": """
        ps -o pid= -p $$ | wc -l; ps aux | head -1; ps -eo comm= | grep -c '[b]ash'; pgrep -c bash >/dev/null; echo $?
        free | head -1; uptime | grep -c load; vmstat | head -1; top -bn1 | sed -n 7p | tr -s ' '; nproc >/dev/null; echo $?
        lsof -p $$ -a -d cwd -Fn | tail -1; kill -0 $$; pidof bash >/dev/null; echo $?; sysctl -n kernel.ostype
        (flock -x 9; echo locked; flock -n /tmp/lock true; echo $?) 9>/tmp/lock; setsid sh -c 'ps -o sid= -p $$ | grep -c .'
        prlimit --pid $$ --nofile -o SOFT --noheadings | wc -l; taskset -p $$ >/dev/null; echo $?; nice -n 5 nice; chrt -p $$ | head -1 | sed 's/[0-9]*//g'
        getopt -o ab: -- -a -b x y; rev <<<abc; column -t <<<'a b'; hexdump -C <<<hello; script -qc 'tty | sed s/[0-9]*$//' /dev/null; logger -s hi 2>&1 | sed s/.*hi/hi/
    """,
    "perl": """
        perl -e 'my %h; $h{$_}++ for map { length } split /\\s+/, `cat /etc/services`; print join(" ", map {"$_=$h{$_}"} sort {$a<=>$b} keys %h), "\\n"'
        perl -MSocket -e 'socketpair(A,B,AF_UNIX,SOCK_STREAM,0); if (!fork) {syswrite B, "child\\n"; exit 3} print scalar <A>; wait; print $?>>8, "\\n"'
        perl -e '$SIG{ALRM} = sub { die "alarm\\n" }; alarm 1; eval { select undef, undef, undef, 10 }; print $@'
        perl -MFile::Find -e 'find(sub { $n++ if -f }, "/usr/share/perl5"); print "$n\\n"'; perl -MPOSIX -e 'print strftime("%F", gmtime 0), " ", (uname)[0], "\\n"'
        perl -MFcntl=:flock -e 'open F, ">", "/tmp/l"; print flock(F, LOCK_EX), "\\n"; seek F, 1<<20, 0; print F "x"; close F; print -s "/tmp/l", "\\n"'
        perl -MIO::Select -e 'pipe R, W; print scalar(IO::Select->new(\\*R)->can_read(0.1)), "\\n"; syswrite W, "x"; print scalar(my @r = IO::Select->new(\\*R)->can_read(1)), "\\n"'
        perl -Mthreads -e 'print join(",", map { $_->join } map { my $n = $_; threads->create(sub { $n * $n }) } 1..5), "\\n"'
        perl -MStorable -MData::Dumper -e '$Data::Dumper::Indent=0; store {a=>[1..3]}, "/tmp/s"; print Dumper(retrieve "/tmp/s"), "\\n"'; perl -e 'die "dead\\n"'; echo $?
    """,
}


@pytest.mark.parametrize("script", BASH.values(), ids=BASH.keys())
async def test_a_bash_script_does_as_natively(compare: Compare, script: str) -> None:
    await compare(["bash", "-c", script])


@pytest.mark.parametrize("script", TOOLS.values(), ids=TOOLS.keys())
async def test_the_tools_do_as_natively(compare: Compare, script: str) -> None:
    await compare(["bash", "-c", script])
