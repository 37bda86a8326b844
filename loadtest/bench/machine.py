"""What was measured on: hardware, versions, and how much of the time somebody else had the machine."""
import os, platform, re, shutil, subprocess, sys
from contextlib import contextmanager
from pathlib import Path

from servers import ROOT, SHOP, psql, redis

NOISY_STEAL, NOISY_SPREAD = 0.05, 1.5


def first_line(*command):
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    except OSError:
        return None
    return (done.stdout or done.stderr).strip().splitlines()[0] if (done.stdout or done.stderr).strip() else None


def describe():
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": f"{os.cpu_count()} x {cpu.group(1) if cpu else platform.machine()}",
        "memory": f"{int(memory.group(1)) / 1024 / 1024:.0f} GiB",
        "kernel": platform.release(),
        "congestion control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "TestShop": f"{first_line(SHOP, '--version')}, commit {first_line('git', '-C', ROOT, 'rev-parse', '--short', 'HEAD')}",
        "rustc": first_line("rustc", "--version"),
        "PostgreSQL": psql("testshop", "show server_version"),
        "Redis": re.search(r"(?:valkey|redis)_version:(\S+)", redis("INFO", "server")).group(1),
        "wrk": first_line("wrk", "-v"),
        "python": platform.python_version(),
        "node": first_line("node", "--version") if shutil.which("node") else None,
    }


class Steal:
    """The share of this machine's time that its host gave to others since this was made."""

    def __init__(self):
        self.before = self.read()

    @staticmethod
    def read():
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return fields[7], sum(fields) - fields[3] - fields[4]

    def share(self):
        stolen, busy = (after - before for after, before in zip(self.read(), self.before))
        return stolen / max(busy, 1)


# until whoever started it has gone; what is not idle priority goes before it at once
NEVER_SLEEP = """
import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
parent = os.getppid()
print(flush=True)
while os.getppid() == parent:
    for _ in range(1_000_000): pass
"""


@contextmanager
def awake():
    """Gives each processor something to do that gives way to everything else, so that none falls asleep.

    A virtual processor that sleeps for 20 us hands its core back to the host and, where others want it, waits for milliseconds until it is given one again.
    Whoever passes work on most often then looks worst. It is what the kernel's own `idle=poll` does, without a restart.
    """
    idlers = [subprocess.Popen([sys.executable, "-c", NEVER_SLEEP], stdout=subprocess.PIPE) for _ in range(os.cpu_count())]
    try:
        for idler in idlers:
            idler.stdout.readline()
        yield
    finally:
        for idler in idlers:
            idler.kill()
            idler.wait()
            idler.stdout.close()


def noise(rows, steal):
    """Why these figures should not be judged by, or nothing."""
    spreads = [max(row["values"]) / min(row["values"]) for row in rows if row.get("reference") and min(row["values"]) > 0]
    reasons = []
    if steal > NOISY_STEAL:
        reasons.append(f"the host gave {steal:.0%} of the time to others")
    if spreads and max(spreads) > NOISY_SPREAD:
        reasons.append(f"what should have stayed the same varied by {max(spreads):.1f} x")
    return "; ".join(reasons)
