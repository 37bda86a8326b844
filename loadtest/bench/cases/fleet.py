"""A fleet of instances on one PostgreSQL: how many statements hits cost it, with and without leases.

wrk loads all instances at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from load import Sample, column, interleave, wrk
from options import Options
from rows import Row, row
from servers import (
    LEASE,
    PostgresCpu,
    TestShop,
    catalogue,
    leases_enabled,
    running,
    start_testshop,
    transactions,
)

PATH = "/api/products/"


def run(options: Options) -> Iterator[Row]:
    database = catalogue(100)
    with leases_enabled(database):
        for instances in (1, 3) if options.quick else (1, 3, 6):
            yield from measure(options, database, instances)


def measure(options: Options, database: str, instances: int) -> Iterator[Row]:
    fleets = {
        lease: [start_testshop(database, LEASE=setting) for _ in range(instances)]
        for lease, setting in {"off": "0s", "on": LEASE}.items()
    }
    with running(*fleets["off"], *fleets["on"]):
        measures = {
            f"{lease} {clients}": partial(load_all, fleet, database, clients, options.seconds)
            for lease, fleet in fleets.items()
            for clients in (1, 16)
        }
        results = interleave(min(options.rounds, 3), measures)
    for clients in (1, 16):
        for lease in fleets:
            samples = results[f"{lease} {clients}"]
            title = f"{instances} instances, {clients} clients each, leases {lease}"
            key = f"{lease}.{clients}"
            yield row(f"fleet.rate.{key}", title, "req/s", column(samples, "rate"), x=instances)
            reads = column(samples, "version_reads")
            yield row(f"fleet.reads.{key}", "  version reads", "/s", reads, x=instances)
            per_thousand = column(samples, "statements")
            yield row(f"fleet.statements.{key}", "  statements per 1,000 hits", "", per_thousand, x=instances)
            cpu = column(samples, "postgres_cpu")
            yield row(f"fleet.cpu.{key}", "  CPU of PostgreSQL per 1,000 hits", "s", cpu, x=instances)


def load_all(fleet: list[TestShop], database: str, clients: int, seconds: int) -> Sample:
    """The sums of all instances, whose counters are read while the load is on: without it there are idle reads only."""
    postgres = PostgresCpu()

    def counters() -> dict[str, float]:
        reads = sum(server.metrics()["version_reads_total"] for server in fleet)
        return {"reads": reads, "statements": transactions(database), "cpu": postgres.seconds()}

    before, started = counters(), time.monotonic()
    with ThreadPoolExecutor(len(fleet)) as pool:
        reports = list(pool.map(lambda server: wrk(server, PATH, clients, seconds), fleet))
    elapsed, after = time.monotonic() - started, counters()
    thousands = sum(report["requests"] for report in reports) / 1000
    return {
        "rate": sum(report["rate"] for report in reports),
        "version_reads": (after["reads"] - before["reads"]) / elapsed,
        "statements": (after["statements"] - before["statements"]) / thousands,
        "postgres_cpu": (after["cpu"] - before["cpu"]) / thousands,
    }
