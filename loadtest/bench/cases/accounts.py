"""Logins and registrations at 600,000 iterations, and list latency during a login flood.

The raw rate comes from loadtest/baselines/hashing.rs: the same number of hashing threads as TestShop, on an otherwise
idle machine.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

from load import interleave, k6, ratios, wrk
from options import Options
from rows import Row, row
from servers import (
    EXAMPLES,
    PASSWORD,
    TESTSHOP,
    TestShop,
    catalogue,
    environment,
    number_in,
    psql,
    running,
    start_testshop,
)

ITERATIONS = 600_000
FLOOD_CLIENTS = 200


def raw_rate(seconds: int) -> float:
    """Hashes per second of the hashing threads alone."""
    command = [str(EXAMPLES / "hashing"), str(ITERATIONS), str(seconds)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return number_in(r"([\d.]+) hashes/s", output)


def hash_rate(testshop: TestShop, path: str, script: str, seconds: int) -> float:
    """Hashes per second under load, from the server's counter: it includes requests that wrk abandons at the end."""
    before, started = testshop.metrics()["password_hashes_total"], time.monotonic()
    wrk(testshop, path, connections=4, seconds=seconds, script=script)
    return (testshop.metrics()["password_hashes_total"] - before) / (time.monotonic() - started)


def run(options: Options) -> Iterator[Row]:
    database, seconds = catalogue(1_000), max(options.seconds, 8)
    subprocess.run(
        [TESTSHOP, "set-password", "user1"],
        env=environment(database, PBKDF2_ITERATIONS=ITERATIONS),
        input=PASSWORD,
        text=True,
        check=True,
        capture_output=True,
    )
    testshop = start_testshop(database, PBKDF2_ITERATIONS=ITERATIONS)
    with running(testshop):
        measures = {
            "raw": lambda: raw_rate(seconds),
            "login": lambda: hash_rate(testshop, "/api/login/", "login.lua", seconds),
            "register": lambda: hash_rate(testshop, "/api/register/", "register.lua", seconds),
        }
        results = interleave(min(options.rounds, 3), measures)
        yield row("accounts.raw", "hashing threads alone", "/s", results["raw"], reference=True)
        for name in ("login", "register"):
            yield row(f"accounts.{name}", f"{name}", "/s", results[name])
            yield row(f"accounts.{name}_ratio", "  ratio to the raw rate", "x", ratios(results[name], results["raw"]))
        yield from login_flood(testshop)
    psql(database, "delete from users where username like 'load-%'")


def login_flood(testshop: TestShop) -> Iterator[Row]:
    """List latency at a constant rate: alone, and while FLOOD_CLIENTS clients log in without a pause."""
    settings = {"RATE": 200, "DURATION": "10s", "STAFF_USER": "user1", "STAFF_PASSWORD": PASSWORD}
    measures = {
        "idle": lambda: k6("browse.js", testshop, WHAT="list", **settings),
        "flood": lambda: k6("logins.js", testshop, VUS=FLOOD_CLIENTS, **settings),
    }
    results = interleave(2, measures)
    p99 = {
        name: [summary.metrics["http_req_duration{what:list}"]["p(99)"] for summary in summaries]
        for name, summaries in results.items()
    }
    yield row("accounts.list_idle", "list of 1,000 at 200 requests/s (k6), p99", "ms", p99["idle"])
    yield row("accounts.list_flood", f"  while {FLOOD_CLIENTS} clients log in, p99", "ms", p99["flood"])
    yield row("accounts.flood_ratio", "  ratio", "x", ratios(p99["flood"], p99["idle"]))
