"""The cached list of 100 products and the export of 100,000: TestShop, four other stacks, and the baseline.

TestShop serves the list without and with leases.

Each peer verifies the token and serves the list that Redis holds, as is usual in its framework. All use the same
database, the same Redis and the same machine, and their JSON is compared first. No peer checks that the cached list is
current.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

from load import column, download, interleave, ratios, wrk_with_cpu
from options import Options
from rows import Row, row
from servers import (
    Server,
    bump_version,
    catalogue,
    leases_enabled,
    redis,
    running,
    start_baseline,
    start_leased_testshop,
    start_peer,
    start_testshop,
)

PATH, EXPORT = "/api/products/", "/api/products/export/"


def run(options: Options) -> Iterator[Row]:
    yield from cached_lists(options)
    yield from exports(options)


def start_all(options: Options, database: str) -> list[Server]:
    return [start_testshop(database), *(start_peer(name, database) for name in options.peers)]


def cached_lists(options: Options) -> Iterator[Row]:
    # the peers would serve lists that they cached in an earlier run
    redis("FLUSHDB")
    database = catalogue(100)
    with leases_enabled(database):
        yield from compare_lists(options, [*start_all(options, database), start_leased_testshop(database)])


def compare_lists(options: Options, servers: list[Server]) -> Iterator[Row]:
    with running(*servers):
        body = servers[0].get(PATH)[1]
        for server in servers[1:]:
            assert json.loads(server.get(PATH)[1]) == json.loads(body), f"{server.name} returns another list"
        baseline = start_baseline(body)
        everyone = [baseline, *servers]
        with running(baseline):
            measures = {
                server.name: partial(wrk_with_cpu, server, PATH, seconds=options.seconds) for server in everyone
            }
            results = interleave(options.rounds, measures)
        memory = {server.name: server.memory() for server in servers}
    rates = {name: column(samples, "rate") for name, samples in results.items()}
    for name, rate in rates.items():
        yield row(f"peers.rate.{name}", f"{name}, cached list of 100", "req/s", rate, reference=name == "baseline")
        yield row(f"peers.cpu.{name}", "  server CPU per 1,000 requests", "s", column(results[name], "cpu"))
        if name in memory:
            yield row(f"peers.memory.{name}", "  memory of all its processes", "MiB", [memory[name]])
        if name in options.peers:
            for key, ours in (("ratio", "TestShop"), ("leases.ratio", "TestShop with leases")):
                yield row(f"peers.{key}.{name}", f"  {ours} / {name}", "x", ratios(rates[ours], rate))


def exports(options: Options) -> Iterator[Row]:
    """100,000 products as XLSX, in the usual way of each stack."""
    servers = start_all(options, catalogue(100_000))

    def measure(server: Server) -> float:
        bump_version(catalogue(100_000))
        return download(server, EXPORT).last

    with running(*servers):
        results = interleave(1, {server.name: partial(measure, server) for server in servers})
    for name, seconds in results.items():
        yield row(f"peers.export.{name}", f"{name}, export of 100,000 products", "s", seconds)
        if name != "TestShop":
            ratio = ratios(seconds, results["TestShop"])
            yield row(f"peers.export_ratio.{name}", f"  {name} / TestShop", "x", ratio)
