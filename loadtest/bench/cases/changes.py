"""The first requests after a change: the list, which loads the change, and the change feed.

The price of one product after another changes, each by a PATCH, without other load. A HEAD request for the list loads
the change and sends no body.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from email.message import Message
from statistics import median
from typing import NamedTuple

from load import timed
from options import Options
from rows import Row, row
from servers import JSON, PostgresCpu, Server, catalogue, psql, running, start_testshop

PATH = "/api/products/"


class Reply(NamedTuple):
    headers: Message
    body: bytes


class ChangingClient:
    """Changes one product after another, and times (in ms) what it asks for then."""

    def __init__(self, server: Server, products: int) -> None:
        self.server, self.products, self.number = server, products, 0
        self.connection = server.connect()

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: str | None = None
    ) -> Reply:
        self.connection.request(method, path, body=body, headers={**self.server.headers, **(headers or {})})
        response = self.connection.getresponse()
        return Reply(response.headers, response.read())

    def change(self) -> None:
        self.number += 1
        body = json.dumps({"price": 10_000 + self.number})
        self.request("PATCH", f"{PATH}{1 + self.number * 7919 % self.products}/", JSON, body)

    def head(self, encoding: str) -> Message:
        return self.request("HEAD", PATH, {"Accept-Encoding": encoding}).headers

    def change_and_list(self, encoding: str) -> float:
        self.change()
        return timed(lambda: self.head(encoding)) * 1000

    def postgres_cpu(self, changes: int) -> tuple[float, float]:
        """CPU time of PostgreSQL (ms) per change, and per list after it."""
        postgres = PostgresCpu()
        times = []
        for work in (self.change, lambda: self.change_and_list("identity")):
            before = postgres.seconds()
            for _ in range(changes):
                work()
            times.append((postgres.seconds() - before) / changes * 1000)
        return times[0], times[1] - times[0]

    def change_and_follow(self, changes: int) -> tuple[list[float], int]:
        """The sorted times of the change feed, each after one change, and the size of the longest page."""
        token = self.head("identity")["X-Sync-Token"]
        times, longest = [], 0
        for _ in range(changes):
            self.change()
            started = time.monotonic()
            page = self.request("GET", f"{PATH}changes/?since={token}").body
            times.append((time.monotonic() - started) * 1000)
            longest = max(longest, len(page))
            changed = json.loads(page)
            assert len(changed["changed"]) == 1, page
            token = changed["token"]
        return sorted(times), longest


def percentile(sorted_values: list[float], percent: int) -> float:
    return sorted_values[len(sorted_values) * percent // 100]


def run(options: Options) -> Iterator[Row]:
    for products in options.sizes(100, 1_000, 10_000, 100_000, 1_000_000):
        yield from measure(options, products)


def measure(options: Options, products: int) -> Iterator[Row]:
    database = catalogue(products)
    server = start_testshop(database)
    with running(server):
        client = ChangingClient(server, products)
        psql(database, "create extension if not exists pg_stat_statements")
        first = client.change_and_list("identity")
        # a slow fill goes on after the response, and its rows are not those of a change
        for _ in range(60):
            if client.head("identity")["Cache-Status"].endswith("detail=memory"):
                break
        psql(database, "select pg_stat_statements_reset()")
        changes = 100 if options.quick else 300
        times = {
            encoding: sorted(client.change_and_list(encoding) for _ in range(changes))
            for encoding in ("identity", "gzip")
        }
        statement = "query like '%from products p%' and query not like '%where p.id = $1%'"
        rows = f"select coalesce(sum(rows), 0) from pg_stat_statements where {statement}"
        rows_per_change = float(psql(database, rows)) / (2 * changes)
        change_cpu, list_cpu = client.postgres_cpu(changes)
        feed_times, feed_bytes = client.change_and_follow(changes)
    yield row("changes.list.first", f"{products:,} products, first list", "ms", [first], x=products)
    for encoding, sorted_times in times.items():
        title = f"  list after a change, {encoding}"
        yield row(f"changes.list.{encoding}.median", f"{title}, median", "ms", [median(sorted_times)], x=products)
        yield row(f"changes.list.{encoding}.p99", f"{title}, p99", "ms", [percentile(sorted_times, 99)], x=products)
    yield row("changes.list.rows", "  rows read from products per change", "", [rows_per_change], x=products)
    yield row("changes.cpu.change", "  CPU of PostgreSQL per change", "ms", [change_cpu], x=products)
    yield row("changes.cpu.list", "  CPU of PostgreSQL per list after a change", "ms", [list_cpu], x=products)
    yield row("changes.feed.median", "  changes after a change, median", "ms", [median(feed_times)], x=products)
    yield row("changes.feed.p99", "  changes after a change, p99", "ms", [percentile(feed_times, 99)], x=products)
    yield row("changes.feed.bytes", "  changes after a change", "B", [feed_bytes], x=products)
