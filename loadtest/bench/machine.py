"""The machine under test: hardware, versions, CPU steal, and the noise that follows from it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rows import Row
from servers import ROOT, TESTSHOP, psql, redis

# above these a case is too noisy to judge: CPU steal as a share, largest/smallest value of a reference row
MAX_STEAL = 0.05
MAX_REFERENCE_SPREAD = 1.5


def first_line(*command: object) -> str | None:
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    except OSError:
        return None
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else None


def describe() -> dict[str, str | None]:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    redis_version = re.search(r"(?:valkey|redis)_version:(\S+)", redis("INFO", "server"))
    commit = first_line("git", "-C", ROOT, "rev-parse", "--short", "HEAD")
    return {
        "cpu": f"{os.cpu_count()} x {cpu.group(1) if cpu else platform.machine()}",
        "memory": f"{int(memory.group(1)) / 1024 / 1024:.0f} GiB" if memory else None,
        "kernel": platform.release(),
        "congestion control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "TestShop": f"{first_line(TESTSHOP, '--version')}, commit {commit}",
        "rustc": first_line("rustc", "--version"),
        "PostgreSQL": psql("testshop", "show server_version"),
        "Redis": redis_version.group(1) if redis_version else None,
        "wrk": first_line("wrk", "-v"),
        "python": platform.python_version(),
        "node": first_line("node", "--version") if shutil.which("node") else None,
    }


class Steal:
    """CPU steal since the construction of the object, as a share of the busy time of all processors."""

    def __init__(self) -> None:
        self.before = self.read()

    @staticmethod
    def read() -> tuple[int, int]:
        """Stolen and busy clock ticks (proc(5), /proc/stat)."""
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return fields[7], sum(fields) - fields[3] - fields[4]

    def share(self) -> float:
        stolen, busy = (after - before for after, before in zip(self.read(), self.before, strict=True))
        return stolen / max(busy, 1)


# loops at idle priority until its parent exits; every process of a higher class preempts it
IDLE_LOOP = """
import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
parent = os.getppid()
print(flush=True)
while os.getppid() == parent:
    for _ in range(1_000_000): pass
"""


@contextmanager
def keep_cpus_awake() -> Iterator[None]:
    """Runs one idle-priority loop per processor, so that no processor goes to sleep.

    A virtual processor that sleeps for 20 us returns its core to the host. If other guests want the core, it waits
    milliseconds to get it back, which penalises the server with the most handovers between threads or processes. The
    kernel parameter `idle=poll` has the same effect but needs a reboot.
    """
    command = [sys.executable, "-c", IDLE_LOOP]
    loops = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(os.cpu_count() or 1)]
    try:
        for loop in loops:
            assert loop.stdout
            loop.stdout.readline()
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
            if loop.stdout:
                loop.stdout.close()


def noise(rows: Sequence[Row], steal: float) -> str:
    """Why these values are too noisy to judge; empty if they are not."""
    references = [row["values"] for row in rows if row.get("reference") and min(row["values"]) > 0]
    spread = max((max(values) / min(values) for values in references), default=1.0)
    reasons = []
    if steal > MAX_STEAL:
        reasons.append(f"CPU steal {steal:.0%}")
    if spread > MAX_REFERENCE_SPREAD:
        reasons.append(f"reference rows vary by a factor of {spread:.1f}")
    return "; ".join(reasons)
