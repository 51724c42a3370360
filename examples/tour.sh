# Runs inside a sandbox: `make run` starts it. Everything it shows is answered by our kernel, not the host's.
set -eu
step() { printf '\n\033[1m$ %s\033[0m\n' "$1"; }

step 'dmesg';                       dmesg
step 'uname -a';                    uname -a
step 'ps aux';                      ps aux
step 'cat /proc/cpuinfo | head';    head /proc/cpuinfo
step 'a pipeline';                  seq 1 1000 | grep 7 | sort -rn | head -3 | tr '\n' ' '; echo
step 'python3: threads and a subprocess'
python3 - <<'PYTHON'
import subprocess, threading

results = {}
threads = [threading.Thread(target=lambda n=n: results.update({n: n * n})) for n in range(5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("squares from five threads:", sorted(results.values()))
print("a child says:", subprocess.run(["echo", "hello from a subprocess"], capture_output=True, text=True).stdout.strip())
PYTHON

if command -v redis-server >/dev/null; then
    step 'redis over a Unix socket'
    redis-server --port 0 --unixsocket /tmp/redis.sock --save '' --daemonize yes --pidfile /tmp/redis.pid >/dev/null
    for _ in $(seq 50); do redis-cli -s /tmp/redis.sock ping >/dev/null 2>&1 && break; sleep 0.1; done
    redis-cli -s /tmp/redis.sock set greeting 'hello from redis'
    redis-cli -s /tmp/redis.sock get greeting
    redis-cli -s /tmp/redis.sock shutdown nosave || true
fi
