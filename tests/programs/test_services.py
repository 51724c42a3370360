"""Servers and package management: Redis, PostgreSQL, dpkg and apt-get, terminals."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from pathlib import Path

from inside import Compare, run_inside

from asyncsentry.sandbox import Sandbox

REDIS = r"""
cd /tmp; redis-server --port 0 --unixsocket /tmp/redis --appendonly yes --save '1 1' --dir /tmp --daemonize no >log 2>&1 & server=$!
redis() { redis-cli -s /tmp/redis "$@"; }
until redis ping 2>/dev/null | grep -q PONG; do sleep 0.05; done
redis set key value; redis incrby n 41; redis incr n; redis lpush list a b c; redis lrange list 0 -1; redis setex gone 1 x
redis eval 'return redis.call("get", KEYS[1])' 1 key; seq 2000 | sed 's/.*/set k& v&/' | redis --pipe | tail -1
redis bgsave; until [ "$(redis lastsave)" -gt 0 ] && [ -e dump.rdb ]; do sleep 0.05; done; redis bgrewriteaof >/dev/null; sleep 1.2; redis exists gone
until redis info persistence | grep -q aof_rewrite_in_progress:0; do sleep 0.05; done; redis info persistence | grep -E 'status|loading' | tr -d '\r'
kill $server; wait $server; echo "ended $?"; grep -c 'Ready to accept' log; redis-check-rdb dump.rdb >/dev/null; echo $?; ls appendonlydir | wc -l
redis-server --port 0 --unixsocket /tmp/redis --appendonly yes --dir /tmp --daemonize yes >/dev/null; until redis ping 2>/dev/null | grep -q PONG; do sleep 0.05; done
redis dbsize; redis get n; redis get k1234; redis-benchmark -s /tmp/redis -q -n 2000 -c 20 -t set,get 2>&1 | tr '\r' '\n' | grep -c 'requests per second'; redis shutdown nosave
"""

POSTGRES = r"""
export PATH=/usr/lib/postgresql/15/bin:$PATH; cd /tmp; initdb -D data -A trust >init.log 2>&1; echo $?
pg_ctl -D data -l log -w -o '-k /tmp -c listen_addresses=' start >/dev/null; echo $?
psql -h /tmp -Atc 'select version()' postgres | cut -c1-13; createdb -h /tmp bench; pgbench -h /tmp -i -q -s 1 bench 2>/dev/null; echo $?
pgbench -h /tmp -c 4 -j 2 -t 50 bench 2>/dev/null | grep -E 'processed|failed'; psql -h /tmp bench -At <<'EOF'
create table t as select g, md5(g::text) m from generate_series(1, 20000) g; create index on t(m); analyze t;
select count(*), max(m) from t where m like 'a%'; begin; delete from t where g > 100; rollback; select count(*) from t;
set max_parallel_workers_per_gather = 2; set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; select sum(g) from t;
copy (select g from t order by g limit 3) to program 'cat >/tmp/out'; vacuum full t; select pg_cancel_backend(0);
EOF
cat out; psql -h /tmp -At bench -c 'listen x' -c "notify x, 'hello'" | sed 's/PID .*/PID/'
psql -h /tmp -Atc 'select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)' bench
kill -9 $(head -1 data/postmaster.pid); sleep 0.3; pg_ctl -D data -l log -w -o '-k /tmp -c listen_addresses=' start >/dev/null; echo "after a crash $?"
psql -h /tmp -Atc 'select count(*) from pgbench_history' bench; pg_dump -h /tmp bench | grep -c CREATE; pg_ctl -D data -m fast stop >/dev/null; echo $?
"""

PACKAGE = r"""
cd /tmp; mkdir -p pkg/DEBIAN pkg/usr/bin pkg/usr/share/hello; printf '#!/bin/sh\necho hello from a package\n' >pkg/usr/bin/hello-deb; chmod 755 pkg/usr/bin/hello-deb
echo data >pkg/usr/share/hello/data; printf 'Package: hello-deb\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@example.org>\nDepends: bash\nDescription: test\n' >pkg/DEBIAN/control
printf '#!/bin/sh\nset -e\necho configured $1\n' >pkg/DEBIAN/postinst; printf '#!/bin/sh\necho removing $1\n' >pkg/DEBIAN/prerm; chmod 755 pkg/DEBIAN/p*
dpkg-deb --root-owner-group -b pkg hello.deb; dpkg-deb -c hello.deb | awk '{print $1, $2, $6}'
apt-get install -y ./hello.deb >log 2>err; echo $?; grep configured log; hello-deb; dpkg -s hello-deb | grep -E 'Status|Version'; dpkg -L hello-deb; dpkg -V hello-deb
dpkg -S /usr/bin/hello-deb; apt-get remove -y hello-deb >log 2>&1; echo $?; grep removing log; hello-deb; echo $?
dpkg -i hello.deb >log; tail -1 log; dpkg --purge hello-deb >/dev/null; echo $?; dpkg -l | wc -l; apt-mark showmanual | wc -l; apt-cache policy bash | head -1
"""

TMUX = r"""
runs() { until [ "$(tmux display -p '#{pane_current_command}')" = $1 ]; do sleep 0.05; done; }
shows() { until tmux capture-pane -p | grep -q "$1"; do sleep 0.05; done; }
export TERM=xterm; tmux -f /dev/null new-session -d -x 80 -y 24 'PS1="ready> " bash --norc --noprofile'; shows 'ready>'
tmux send-keys 'echo typed $((6 * 7)); tty | sed s/[0-9]*$//; stty size' Enter; shows '24 80\|23 80'
tmux send-keys 'sleep 100' Enter; runs sleep; tmux send-keys C-c; runs bash; tmux send-keys 'echo status $?' Enter; shows 'status 130'
tmux send-keys 'sleep 100' Enter; runs sleep; tmux send-keys C-z; shows Stopped; runs bash; tmux send-keys 'fg' Enter; runs sleep; tmux send-keys C-\\; shows Quit
tmux split-window 'cat'; tmux list-panes | wc -l; tmux send-keys -t 1 'in the second pane' Enter; until tmux capture-pane -t 1 -p | grep -m1 second; do sleep 0.05; done; tmux resize-window -x 100 -y 30
until tmux send-keys -t 0 'clear; stty size' Enter; sleep 0.2; tmux capture-pane -t 0 -p | grep '15 100'; do true; done; tmux kill-server; echo $?
"""

SCRIPT = r"""
printf 'echo $((1+1))\nsleep 30\n\003echo after $?\nread -s secret\nhidden\necho [$secret]\nstty -a | grep -o "isig icanon"\nexit 5\n' |
    { while IFS= read -r line; do sleep 0.3; printf '%s\n' "$line"; done; } | script -qec 'PS1=% bash --norc --noprofile -i' /tmp/typescript | tr -d '\r' | grep -v '^bash: ' ; echo "${PIPESTATUS[@]}"
"""


async def test_redis_keeps_its_data(compare: Compare) -> None:
    await compare(["bash", "-c", REDIS])


async def test_redis_serves_the_host(rootfs: Path, nothing_left_behind: None) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    async with Sandbox(root=str(rootfs), network="host") as sandbox:
        server = await sandbox.spawn(["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", "/tmp", "--appendonly", "yes"],
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        assert server.stdout is not None
        while b"Ready to accept" not in await asyncio.wait_for(server.stdout.readline(), 20):
            pass
        # In a thread: uvloop's own subprocesses keep a copy of our standard input open, which is not ours to close.
        benchmark = await asyncio.to_thread(
            subprocess.run, ["redis-benchmark", "-p", port, "-q", "-n", "3000", "-c", "20", "-t", "set,get,lpush,mset"],
            capture_output=True, timeout=60, check=False)  # fmt: skip
        assert benchmark.returncode == 0, benchmark.stderr
        assert benchmark.stdout.count(b"requests per second") >= 4, benchmark.stdout
        server.terminate()
        assert await asyncio.wait_for(server.wait(), 20) == 0


async def test_postgresql_survives_a_crash(compare: Compare) -> None:
    await compare(["su", "postgres", "-s", "/bin/bash", "-c", POSTGRES], limit_s=110)


async def test_a_package_can_be_installed(compare: Compare) -> None:
    await compare(["bash", "-c", PACKAGE])


async def test_what_a_sandbox_installs_stays_in_it(sandbox: Sandbox, rootfs: Path) -> None:
    await run_inside(sandbox, ["bash", "-c", PACKAGE.replace("dpkg --purge", "true") + "touch /usr/bin/left-over; rm /bin/ls"])
    assert not (rootfs / "usr/bin/hello-deb").exists()
    assert not (rootfs / "usr/bin/left-over").exists()
    assert (rootfs / "usr/bin/ls").exists()


async def test_tmux_drives_a_shell(compare: Compare) -> None:
    await compare(["bash", "-c", TMUX])


async def test_script_drives_an_interactive_shell(compare: Compare) -> None:
    await compare(["bash", "-c", SCRIPT])
