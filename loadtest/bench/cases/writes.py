"""Reads during writes: the price of one product changes every 100 ms or 10 ms while the list is read at full speed.

Each write is a PATCH through the API of the server under test. After every tenth write the writer reads the list and
checks that it contains the new price. Besides, the time of the first request after a write, which loads the change, and
what the change costs PostgreSQL.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial

from load import Sample, column, interleave, ratios, wrk
from options import Options
from rows import Row, row
from servers import Server, catalogue, psql, redis, running, start_peer, start_testshop

PATH = "/api/products/"


class Writer(threading.Thread):
    """Changes product 1 at a fixed interval (seconds)."""

    def __init__(self, server: Server, interval: float) -> None:
        super().__init__(daemon=True)
        self.server, self.interval = server, interval
        self.writes = self.checked = self.stale = 0
        self.failed_status: int | None = None
        self.stop = threading.Event()

    def run(self) -> None:
        connection = self.server.connect()
        headers = {**self.server.headers, "Content-Type": "application/json"}
        next_at = time.monotonic()
        while not self.stop.is_set():
            price = 1 + self.writes % 9000
            connection.request("PATCH", PATH + "1/", body=json.dumps({"price": price}), headers=headers)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                self.failed_status = response.status
                return
            self.writes += 1
            if self.writes % 10 == 0:
                connection.request("GET", PATH, headers=self.server.headers)
                self.checked += 1
                self.stale += json.loads(connection.getresponse().read())[0]["price"] != price
            next_at = max(next_at + self.interval, time.monotonic())
            self.stop.wait(next_at - time.monotonic())


def read_during_writes(server: Server, interval: float, seconds: int, connections: int = 64) -> Sample:
    """wrk's report, with the writer's counts; interval 0: no writer."""
    if not interval:
        return {**wrk(server, PATH, connections, seconds), "writes": 0, "checked": 0, "stale": 0}
    fills_before = server.metrics().get("cache_fills_total", 0)
    started, writer = time.monotonic(), Writer(server, interval)
    writer.start()
    report = wrk(server, PATH, connections, seconds)
    writer.stop.set()
    writer.join()
    if writer.failed_status:
        sys.exit(f"bench: {server.name} answered a write with {writer.failed_status}")
    fills = server.metrics().get("cache_fills_total", 0) - fills_before
    return {
        **report,
        "writes": writer.writes / (time.monotonic() - started),
        "checked": writer.checked,
        "stale": writer.stale,
        "fills_per_write": fills / max(writer.writes, 1),
    }


def stale_row(key: str, samples: list[Sample], x: int | None = None) -> Row:
    checked = sum(column(samples, "checked"))
    return row(key, f"  stale lists, of {checked} checked after a write", "", [sum(column(samples, "stale"))], x=x)


def run(options: Options) -> Iterator[Row]:
    testshop = start_testshop(catalogue(100))
    # key: title and interval (s)
    kinds = {"none": ("no writes", 0), "100_ms": ("a write every 100 ms", 0.1), "10_ms": ("a write every 10 ms", 0.01)}
    with running(testshop):
        measures = {
            key: partial(read_during_writes, testshop, interval, options.seconds)
            for key, (_, interval) in kinds.items()
        }
        results = interleave(options.rounds, measures)
    undisturbed = column(results["none"], "rate")
    for key, (title, interval) in kinds.items():
        samples = results[key]
        rate = column(samples, "rate")
        yield row(f"writes.rate.{key}", f"TestShop, {title}", "req/s", rate, reference=not interval)
        if interval:
            yield row(f"writes.ratio.{key}", "  ratio to the rate without writes", "x", ratios(rate, undisturbed))
            yield row(f"writes.done.{key}", "  completed writes", "/s", column(samples, "writes"))
            yield row(f"writes.fills.{key}", "  fills per write", "", column(samples, "fills_per_write"))
            yield stale_row(f"writes.stale.{key}", samples)
    for products in options.sizes(1_000, 10_000, 100_000):
        yield from compare_intervals(options, products)
    for products in options.sizes(100, 1_000, 10_000, 100_000, 1_000_000):
        yield from measure_changes(options, products)
    for products in (100, 1_000):
        yield from compare_peers(options, products)


def compare_intervals(options: Options, products: int) -> Iterator[Row]:
    """The rate of 16 clients with and without writes."""
    server = start_testshop(catalogue(products))
    intervals = {"none": 0, "100_ms": 0.1, "10_ms": 0.01}
    with running(server):
        measures = {
            key: partial(read_during_writes, server, interval, options.seconds, 16)
            for key, interval in intervals.items()
        }
        results = interleave(options.rounds, measures)
    undisturbed = column(results["none"], "rate")
    yield row("writes.sizes.rate.none", f"{products:,} products, 16 clients", "req/s", undisturbed, x=products)
    for key, interval in list(intervals.items())[1:]:
        ratio = ratios(column(results[key], "rate"), undisturbed)
        title = f"  ratio with a write every {interval * 1000:.0f} ms"
        yield row(f"writes.sizes.ratio.{key}", title, "x", ratio, x=products)
        yield row(f"writes.sizes.p99.{key}", "  p99", "ms", column(results[key], "p99"), x=products)
        yield stale_row(f"writes.sizes.stale.{key}", results[key], products)


def measure_changes(options: Options, products: int) -> Iterator[Row]:
    """The time of a HEAD request after a write: it loads the list, and sends no body."""
    database = catalogue(products)
    server = start_testshop(database)
    with running(server):
        connection = server.connect()
        psql(database, "create extension if not exists pg_stat_statements")

        def cache_status() -> str:
            connection.request("HEAD", PATH, headers=server.headers)
            response = connection.getresponse()
            response.read()
            return response.headers["Cache-Status"] or ""

        def change(number: int) -> float:
            body = json.dumps({"price": 1 + number % 9000})
            headers = {**server.headers, "Content-Type": "application/json"}
            connection.request("PATCH", f"{PATH}{1 + number * 7919 % products}/", body=body, headers=headers)
            connection.getresponse().read()
            started = time.monotonic()
            connection.request("HEAD", PATH, headers={**server.headers, "Accept-Encoding": "gzip"})
            connection.getresponse().read()
            return (time.monotonic() - started) * 1000

        first = change(0)
        # a slow fill goes on after the response, and its rows are not those of a change
        for _ in range(60):
            if cache_status().endswith("detail=memory"):
                break
        psql(database, "select pg_stat_statements_reset()")
        changes = 100 if options.quick else 300
        times = sorted(change(number) for number in range(1, changes + 1))
        statement = "query like '%from products p%' and query not like '%where p.id = $1%'"
        rows = f"select coalesce(sum(rows), 0) from pg_stat_statements where {statement}"
        rows_per_change = float(psql(database, rows)) / changes
    yield row("writes.fill.first", f"{products:,} products, first list", "ms", [first], x=products)
    yield row("writes.fill.median", "  list after a change, median", "ms", [times[len(times) // 2]], x=products)
    yield row("writes.fill.p99", "  list after a change, p99", "ms", [times[len(times) * 99 // 100]], x=products)
    yield row("writes.fill.rows", "  rows read from products per change", "", [rows_per_change], x=products)


def compare_peers(options: Options, products: int) -> Iterator[Row]:
    if not options.peers:
        return
    database = catalogue(products)
    # the peers would serve lists that they cached of another catalogue
    redis("FLUSHDB")
    servers = [start_testshop(database), *(start_peer(name, database) for name in options.peers)]
    with running(*servers):
        measures = {server.name: partial(read_during_writes, server, 0.01, options.seconds) for server in servers}
        results = interleave(max(options.rounds // 2, 2), measures)
    for name, samples in results.items():
        title = f"{products:,} products, {name}, a write every 10 ms"
        yield row(f"writes.peers.rate.{name}", title, "req/s", column(samples, "rate"), x=products)
        yield row(f"writes.peers.done.{name}", "  completed writes", "/s", column(samples, "writes"), x=products)
        yield stale_row(f"writes.peers.stale.{name}", samples, products)
    ours = column(results["TestShop"], "rate")
    for name in options.peers:
        title = f"{products:,} products, TestShop / {name}"
        yield row(f"writes.peers.ratio.{name}", title, "x", ratios(ours, column(results[name], "rate")), x=products)
