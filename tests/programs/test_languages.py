"""Compilers, interpreters and virtual machines, natively and inside."""

from __future__ import annotations

import pytest
from inside import Compare

PYTHON = {
    "threads": """
        import threading, queue, time
        q, out, lock = queue.Queue(), [], threading.Lock()
        def work():
            while (n := q.get()) is not None:
                with lock: out.append(n * n)
        threads = [threading.Thread(target=work) for _ in range(16)]
        [t.start() for t in threads]; [q.put(n) for n in range(2000)]; [q.put(None) for _ in threads]
        [t.join() for t in threads]; print(sum(out), len(out))
        event, barrier, local = threading.Event(), threading.Barrier(4), threading.local()
        def meet(): event.wait(); barrier.wait(); local.x = 1
        group = [threading.Thread(target=meet) for _ in range(4)]; [t.start() for t in group]; event.set(); [t.join() for t in group]
        timer = threading.Timer(0.05, print, ["timer"]); timer.start(); timer.join(); print(threading.active_count())
    """,
    "subprocess": """
        import subprocess as sp, signal, os
        print(sp.run(["sort"], input="b\\na\\n", text=True, capture_output=True))
        print(sp.run("exit 7", shell=True).returncode, sp.run(["sh", "-c", "kill -9 $$"]).returncode)
        p = sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE); print(p.communicate(b"x" * 1000000)[0].count(b"x"))
        try: sp.run(["sleep", "9"], timeout=0.1)
        except sp.TimeoutExpired as e: print("timeout")
        try: sp.run(["/nonexistent"])
        except FileNotFoundError as e: print(e)
        print(sp.check_output("echo $A; pwd; id -u; ls -l /proc/self/fd | wc -l", shell=True, env={"A": "b"}, cwd="/usr", user=1000, text=True))
        p = sp.Popen(["sleep", "9"], start_new_session=True); os.killpg(p.pid, signal.SIGTERM); print(p.wait())
        pid, status = os.wait() if os.fork() else os._exit(3); print(os.waitstatus_to_exitcode(status))
        print(os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn("/bin/false", ["false"], {}), 0)[1]))
    """,
    "multiprocessing": """
        import multiprocessing as mp, os
        def square(n): return n * n
        def child(q, lock, counter):
            for _ in range(100):
                with lock: counter.value += 1
            q.put(os.getpid() != os.getppid())
        with mp.Pool(4) as pool: print(sum(pool.map(square, range(1000))))
        q, lock, counter = mp.Queue(), mp.Lock(), mp.Value("i", 0, lock=False)
        ps = [mp.Process(target=child, args=(q, lock, counter)) for _ in range(4)]
        [p.start() for p in ps]; print([q.get() for _ in ps]); [p.join() for p in ps]; print(counter.value, [p.exitcode for p in ps])
        a, b = mp.Pipe(); a.send({"k": [1, 2]}); print(b.recv())
        with mp.Manager() as manager: d = manager.dict(); d["x"] = 1; print(dict(d))
        from multiprocessing import shared_memory
        s = shared_memory.SharedMemory(create=True, size=4096); s.buf[:3] = b"abc"; t = shared_memory.SharedMemory(s.name); print(bytes(t.buf[:3])); t.close(); s.close(); s.unlink()
        from concurrent.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(3) as ex: print(list(ex.map(square, range(5))))
    """,
    "asyncio": """
        import asyncio, os, signal
        async def main():
            server = await asyncio.start_unix_server(echo, "/tmp/s")
            async def client(n):
                r, w = await asyncio.open_unix_connection("/tmp/s"); w.write(b"%d\\n" % n); line = await r.readline(); w.close(); return int(line)
            print(sum(await asyncio.gather(*(client(n) for n in range(100)))))
            p = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1); print(await p.communicate(b"hello"), p.returncode)
            got = asyncio.Event(); asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, got.set); os.kill(os.getpid(), signal.SIGUSR1); await got.wait(); print("signal")
            try: await asyncio.wait_for(asyncio.sleep(10), 0.05)
            except asyncio.TimeoutError: print("timeout")
            print(await asyncio.to_thread(sum, range(10)))
            server.close()
        async def echo(r, w): w.write(await r.readline()); await w.drain(); w.close()
        asyncio.run(main())
    """,
    "mmap": """
        import mmap, os, tempfile
        with tempfile.TemporaryFile() as f:
            f.write(b"0" * 8192); f.flush()
            m = mmap.mmap(f.fileno(), 8192); m[4096:4100] = b"abcd"; m.flush(); f.seek(4096); print(f.read(6))
            f.seek(0); f.write(b"seen"); f.flush(); print(m[:5]); p = mmap.mmap(f.fileno(), 8192, mmap.MAP_PRIVATE); p[:4] = b"priv"; print(m[:4], p[:4])
            m.resize(16384); print(len(m), os.fstat(f.fileno()).st_size); print(m.find(b"abcd"))
        a = mmap.mmap(-1, 4096)
        if os.fork() == 0: a[:5] = b"child"; os._exit(0)
        os.wait(); print(a[:5])
        fd = os.memfd_create("x", os.MFD_ALLOW_SEALING); os.write(fd, b"z" * 100); print(mmap.mmap(fd, 0)[:3])
        with open("/usr/bin/python3.11", "rb") as f: print(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[:4])
    """,
    "sqlite3": """
        import sqlite3, threading
        for mode in ("delete", "wal"):
            db = sqlite3.connect(f"/tmp/{mode}.db"); print(db.execute(f"pragma journal_mode={mode}").fetchone())
            db.execute("create table t(id integer primary key, x text)"); db.executemany("insert into t(x) values (?)", [(str(n),) for n in range(5000)]); db.commit()
            def work():
                own = sqlite3.connect(f"/tmp/{mode}.db", timeout=30)
                for n in range(20): own.execute("insert into t(x) values ('t')"); own.commit()
                own.close()
            ts = [threading.Thread(target=work) for _ in range(4)]; [t.start() for t in ts]; [t.join() for t in ts]
            print(db.execute("select count(*), sum(length(x)) from t").fetchone(), db.execute("pragma integrity_check").fetchone())
            db.execute("delete from t where id % 2"); db.commit(); db.execute("vacuum"); print(db.execute("select count(*) from t").fetchone())
    """,
    "the system as it sees it": """
        import os, sys, resource, time, signal, pwd, socket, select, fcntl, platform, locale
        print(os.uname().sysname, os.uname().machine, sys.platform, platform.libc_ver(), os.getuid(), os.getcwd(), pwd.getpwuid(0).pw_dir)
        print(resource.getrlimit(resource.RLIMIT_CORE)[0], os.sysconf("SC_PAGE_SIZE"), os.getpriority(0, 0), os.umask(0o22))
        print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})), signal.sigpending()); os.kill(os.getpid(), signal.SIGUSR1); print(signal.sigwait({signal.SIGUSR1}))
        r, w = os.pipe2(os.O_NONBLOCK)
        try: os.read(r, 1)
        except BlockingIOError as e: print(e.errno)
        print(fcntl.fcntl(w, fcntl.F_GETPIPE_SZ), select.select([], [w], [], 0)[1] == [w]); a, b = socket.socketpair(); a.sendall(b"x"); print(b.recv(2)); socket.send_fds(a, [b"f"], [r]); print(len(socket.recv_fds(b, 10, 2)[1]))
        print(time.clock_getres(time.CLOCK_MONOTONIC), time.process_time() < 60); os.truncate("/tmp/f", 5) if open("/tmp/f", "w") else 0; print(os.stat("/tmp/f").st_size)
        print(os.listdir("/proc/self/task") == [str(os.getpid())], open("/proc/self/comm").read(), os.readlink("/proc/self/exe"), os.path.ismount("/proc"), os.access("/etc/shadow", os.R_OK))
        os.sendfile(w, os.open("/etc/passwd", 0), 0, 10); print(os.read(r, 20)); print(os.get_terminal_size.__name__, os.isatty(0), sorted(os.sched_getaffinity(0)) != [], os.cpu_count() > 0)
    """,
}

C_PROJECT = r"""
mkdir /tmp/project; cd /tmp/project
for i in 1 2 3 4 5 6 7 8; do echo "int f$i(int x) { return x * $i; }" >f$i.c; done
cat >main.c <<'EOF'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <math.h>
int f1(int), f2(int), f8(int);
static _Thread_local int mine; static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; static int total;
static void *work(void *arg) {
    for (mine = 0; mine < 1000; mine++) { pthread_mutex_lock(&lock); total += f2(*(int *)arg); pthread_mutex_unlock(&lock); }
    return NULL;
}
int main(int argc, char **argv) {
    pthread_t threads[8]; int n = atoi(argv[1]);
    for (int i = 0; i < 8; i++) pthread_create(&threads[i], NULL, work, &n);
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    printf("%d %d %.6f\n", total, f1(f8(n)), sin(n)); return argc + 5;
}
EOF
cat >Makefile <<'EOF'
OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))
program: $(OBJECTS)
	gcc -o $@ $^ -lm -pthread
%.o: %.c
	gcc -O2 -g -c -o $@ $<
EOF
make -j4 program | sort; ./program 3; echo $?; make program; touch f1.c; make -j4 program; gcc -static -O1 main.c f[128].c -o static -lm && ./static 3
gcc -shared -fPIC -o libx.so f1.c && nm -D libx.so | grep -c f1; echo 'int main() { return *(volatile int *)0; }' >crash.c; gcc crash.c -o crash; ./crash; echo $?
echo 'int main( {' >bad.c; gcc -c bad.c 2>/dev/null; echo $?; gcc -fsanitize=undefined -x c - -o /dev/null <<<'int main(){}' 2>/dev/null; objdump -d program | grep -c '<main>:'
"""

GIT = r"""
cd /tmp; git init -q -b main repo; cd repo; git config user.email a@example.org; git config user.name A
export GIT_AUTHOR_DATE='2001-01-01T00:00:00Z' GIT_COMMITTER_DATE='2001-01-01T00:00:00Z'
for i in 1 2 3 4 5; do seq $((i * 1000)) >file$i; mkdir -p d/$i; cp /etc/services d/$i/; git add .; git commit -qm "commit $i"; done
git log --format='%h %s'; git log --stat --oneline -2 | tail -5; git checkout -q -b topic HEAD~2; echo x >topic; git add topic; git commit -qm topic
git checkout -q main; git merge -q -m merge topic; git log --graph --oneline | head -4; git diff HEAD~1 --stat; git gc -q; git fsck 2>&1; git count-objects -v | head -3
git clone -q --no-local /tmp/repo /tmp/clone; cd /tmp/clone; git log --oneline | wc -l; git status --short --branch; echo change >>file1; git diff | head -3; git stash -q; git stash list
git push -q origin HEAD:pushed; git ls-remote . | wc -l; git archive HEAD | tar t | wc -l; git grep -c ssh HEAD -- d | head -2; git blame -s file1 | head -2; git tag -a v1 -m one; git describe; git bundle create -q /tmp/b main && git bundle verify -q /tmp/b; echo $?
"""

NODE = r"""
const { Worker, isMainThread, parentPort, workerData } = require("worker_threads");
const cp = require("child_process"), fs = require("fs"), os = require("os"), net = require("net"), zlib = require("zlib"), crypto = require("crypto");
(async () => {
    const sums = await Promise.all([...Array(4).keys()].map(n => new Promise((resolve, reject) => {
        const worker = new Worker("const {parentPort, workerData} = require('worker_threads'); let s = 0; for (let i = 0; i < 1e6; i++) s += i % workerData; parentPort.postMessage(s)", { eval: true, workerData: n + 2 });
        worker.on("message", resolve); worker.on("error", reject); })));
    console.log(sums);
    console.log(cp.execSync("echo sync; pwd").toString(), cp.spawnSync("sh", ["-c", "exit 3"]).status);
    const child = cp.spawn("cat"); child.stdin.end("through cat"); for await (const chunk of child.stdout) console.log(chunk.toString());
    const forked = cp.spawn(process.execPath, ["-e", "process.on('message', m => { process.send(m + 1); process.disconnect() })"], { stdio: ["inherit", "inherit", "inherit", "ipc"] });
    console.log(await new Promise(resolve => { forked.on("message", resolve); forked.send(41); }));
    fs.writeFileSync("/tmp/f", "x".repeat(100000)); console.log((await fs.promises.readFile("/tmp/f")).length, fs.statSync("/tmp/f").size);
    const server = net.createServer(s => s.pipe(s)).listen("/tmp/sock"); const client = net.connect("/tmp/sock"); client.write("echo"); console.log((await new Promise(resolve => client.on("data", resolve))).toString()); client.end(); server.close();
    const change = new Promise(resolve => { const watcher = fs.watch("/tmp", (event, name) => { watcher.close(); resolve(event + name); }); });
    fs.mkdirSync("/tmp/watched"); console.log(await change);
    console.log(zlib.gunzipSync(zlib.gzipSync("z".repeat(1e6))).length, crypto.createHash("sha256").update("a").digest("hex").slice(0, 8), os.platform());
    await new Promise(resolve => crypto.pbkdf2("p", "s", 1000, 8, "sha1", (e, k) => { console.log(k.toString("hex")); resolve(); }));
    const stay = setInterval(() => {}, 1000); process.on("SIGUSR2", () => { console.log("usr2"); process.exitCode = 9; clearInterval(stay); });
    process.kill(process.pid, "SIGUSR2");
})();
"""

JAVA = r"""
cd /tmp; cat >Main.java <<'EOF'
import java.nio.file.*; import java.util.*; import java.util.concurrent.*; import java.util.concurrent.atomic.*; import java.util.stream.*;
public class Main {
    public static void main(String[] args) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(16); AtomicLong total = new AtomicLong();
        List<Future<Integer>> futures = new ArrayList<>();
        for (int i = 0; i < 200; i++) { int n = i; futures.add(pool.submit(() -> { total.addAndGet(n); return n * n; })); }
        int sum = 0; for (Future<Integer> future : futures) sum += future.get(); pool.shutdown(); System.out.println(sum + " " + total);
        System.out.println(IntStream.range(0, 1_000_000).parallel().mapToLong(x -> x % 7).sum());
        byte[][] garbage = new byte[64][]; for (int i = 0; i < 2000; i++) garbage[i % 64] = new byte[100_000]; System.gc();
        try { Object o = null; o.hashCode(); } catch (NullPointerException e) { System.out.println("npe"); }
        try { deep(0); } catch (StackOverflowError e) { System.out.println("stack overflow"); }
        Path file = Files.createTempFile("j", "x"); Files.writeString(file, "hello"); System.out.println(Files.readString(file) + Files.size(file));
        Process process = new ProcessBuilder("sh", "-c", "echo from sh; exit 4").redirectErrorStream(true).start();
        System.out.println(new String(process.getInputStream().readAllBytes()).trim() + process.waitFor());
        Object lock = new Object(); Thread waiter = new Thread(() -> { synchronized (lock) { try { lock.wait(); System.out.println("notified"); } catch (InterruptedException e) { } } });
        waiter.start(); while (waiter.getState() != Thread.State.WAITING) Thread.sleep(1); synchronized (lock) { lock.notify(); } waiter.join();
        Thread sleeper = new Thread(() -> { try { Thread.sleep(100000); } catch (InterruptedException e) { System.out.println("interrupted"); } }); sleeper.start(); sleeper.interrupt(); sleeper.join();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("hook"))); System.exit(6);
    }
    static int deep(int n) { return deep(n + 1) + 1; }
}
EOF
javac Main.java && java -Xmx256m Main; echo $?; java -version 2>&1 | grep -c Runtime
"""


@pytest.mark.parametrize("program", PYTHON.values(), ids=PYTHON.keys())
async def test_python(compare: Compare, program: str) -> None:
    lines = [line[8:] for line in program.splitlines()]
    await compare(["python3", "-c", "\n".join(lines)])


async def test_c_built_with_make(compare: Compare) -> None:
    await compare(["bash", "-c", C_PROJECT], limit_s=100)


async def test_git(compare: Compare) -> None:
    await compare(["bash", "-c", GIT])


async def test_node(compare: Compare) -> None:
    await compare(["node", "-e", NODE])


async def test_java(compare: Compare) -> None:
    await compare(["bash", "-c", JAVA], limit_s=100)
