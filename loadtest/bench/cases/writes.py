"""Reads during writes: the price of one product changes every 100 ms or 10 ms while the list is read at full speed.

Each write is a PATCH through the API of the server under test. After every tenth write the writer reads the list and
checks that it contains the new price.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from urllib.parse import urlsplit

from load import Sample, column, interleave, ratios, wrk
from options import Options
from rows import Row, row
from servers import (
    JSON,
    Server,
    catalogue,
    leases_enabled,
    redis,
    running,
    start_leased_testshop,
    start_peer,
    start_testshop,
)

PATH = "/api/products/"


class Connection:
    """Takes less CPU time than http.client does, because the writer runs beside the clients that are measured."""

    def __init__(self, server: Server) -> None:
        parts = urlsplit(server.url)
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        headers = {"Host": parts.netloc, **server.headers, **JSON}
        self.headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    def patch(self, path: str, price: int) -> int:
        """Returns the status."""
        body = json.dumps({"price": price})
        head = f"PATCH {path} HTTP/1.1\r\n{self.headers}Content-Length: {len(body)}\r\n\r\n"
        self.socket.sendall((head + body).encode())
        response = b""
        while not is_complete(response):
            part = self.socket.recv(1 << 16)
            if not part:
                raise ConnectionError(f"the connection ended after {response[:300]!r}")
            response += part
        return int(response.split(b" ", 2)[1])


def is_complete(response: bytes) -> bool:
    """Whether this is a response with its body, which has a Content-Length or is chunked."""
    head, end_of_head, body = response.partition(b"\r\n\r\n")
    if not end_of_head:
        return False
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
    return len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")


def first_price(server: Server) -> float:
    """The price of the list's first product. The rest of the list, which may be long, is not read."""
    connection = server.connect()
    connection.request("GET", PATH, headers=server.headers)
    start = connection.getresponse().read(1 << 12)
    connection.close()
    found = re.search(rb'"price" *: *([\d.]+) *[,}]', start)
    if not found:
        raise ValueError(f"no price in {start[:300]!r}")
    return float(found[1])


class Writer(threading.Thread):
    """Changes product 1 at a fixed interval (seconds)."""

    def __init__(self, server: Server, interval: float) -> None:
        super().__init__(daemon=True)
        self.server, self.interval = server, interval
        self.writes = self.checked = self.stale = 0
        self.error: Exception | None = None
        self.stop = threading.Event()

    def run(self) -> None:
        try:
            self.write()
        except (OSError, ValueError) as error:
            self.error = error

    def write(self) -> None:
        connection = Connection(self.server)
        next_at = time.monotonic()
        while not self.stop.is_set():
            price = 1 + self.writes % 9000
            status = connection.patch(PATH + "1/", price)
            if status != 200:
                raise ValueError(f"a write was answered with {status}")
            self.writes += 1
            if self.writes % 10 == 0:
                self.checked += 1
                self.stale += first_price(self.server) != price
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
    if writer.error:
        sys.exit(f"bench: the writer on {server.name}: {writer.error}")
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
    for products in options.sizes(100, 1_000, 10_000, 100_000):
        yield from compare_intervals(options, products)
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


def compare_peers(options: Options, products: int) -> Iterator[Row]:
    if not options.peers:
        return
    database = catalogue(products)
    # the peers would serve lists that they cached of another catalogue
    redis("FLUSHDB")
    with leases_enabled(database):
        peers = [start_peer(name, database) for name in options.peers]
        yield from compare_stacks(
            options, products, [start_testshop(database), *peers, start_leased_testshop(database)]
        )


def compare_stacks(options: Options, products: int, servers: list[Server]) -> Iterator[Row]:
    with running(*servers):
        # the slowest peer answers its first 64 requests after two seconds
        seconds = max(options.seconds, 4)
        measures = {server.name: partial(read_during_writes, server, 0.01, seconds) for server in servers}
        results = interleave(max(options.rounds // 2 + 1, 2), measures)
    for name, samples in results.items():
        title = f"{products:,} products, {name}, a write every 10 ms"
        yield row(f"writes.peers.rate.{name}", title, "req/s", column(samples, "rate"), x=products)
        yield row(f"writes.peers.done.{name}", "  completed writes", "/s", column(samples, "writes"), x=products)
        yield stale_row(f"writes.peers.stale.{name}", samples, products)
    rates = {name: column(samples, "rate") for name, samples in results.items()}
    for name in options.peers:
        for key, ours in (("ratio", "TestShop"), ("leases.ratio", "TestShop with leases")):
            title = f"{products:,} products, {ours} / {name}"
            yield row(f"writes.peers.{key}.{name}", title, "x", ratios(rates[ours], rates[name]), x=products)
