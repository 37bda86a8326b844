"""Throughput at 1 to 8,000 connections, and the memory of an idle connection."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator, Sequence
from functools import partial
from urllib.parse import urlsplit

from load import column, interleave, wrk
from options import Options
from rows import Row, row
from servers import TestShop, catalogue, running, start_baseline, start_testshop

ACTIVE = [1, 8, 64, 512, 4_096, 8_000]
IDLE = [1_000, 4_000, 8_000]
# one network, as all clients here are, may hold half of them
MAX_CONNECTIONS = 20_000
# descriptors that this program needs besides its connections
RESERVED_FDS = 100


def run(options: Options) -> Iterator[Row]:
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    max_connections = hard_limit - RESERVED_FDS
    database = catalogue(100)
    testshop = start_testshop(database, MAX_CONNECTIONS=MAX_CONNECTIONS)
    with running(testshop):
        baseline = start_baseline(testshop.get("/api/products/")[1])
        with running(baseline):
            for connections in [count for count in ACTIVE if count <= max_connections]:
                seconds = options.seconds if connections < 1000 else 4
                measures = {
                    server.name: partial(wrk, server, "/api/products/", connections, seconds)
                    for server in (testshop, baseline)
                }
                results = interleave(min(options.rounds, 3), measures)
                ours, theirs = results["TestShop"], results["baseline"]
                title = f"{connections:,} connection{'s' if connections > 1 else ''}"
                yield row("connections.rate", title, "req/s", column(ours, "rate"), x=connections)
                yield row("connections.baseline", "  baseline", "req/s", column(theirs, "rate"), x=connections)
                yield row("connections.p99", "  p99", "ms", column(ours, "p99"), x=connections)
    testshop = start_testshop(database, MAX_CONNECTIONS=MAX_CONNECTIONS)
    with running(testshop):
        yield from idle(testshop, [count for count in IDLE if count <= max_connections])


def idle(testshop: TestShop, counts: Sequence[int]) -> Iterator[Row]:
    """Connections that made one request and then stay idle until the server has parked them."""
    parts = urlsplit(testshop.url)
    connections: list[socket.socket] = []
    authorization = testshop.headers["Authorization"]
    head = f"GET /api/products/1/ HTTP/1.1\r\nHost: shop\r\nAuthorization: {authorization}\r\n\r\n".encode()
    testshop.get("/api/products/1/")
    before = testshop.memory()
    for count in counts:
        while len(connections) < count:
            connection = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30)
            connection.sendall(head)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            connections.append(connection)
        deadline = time.monotonic() + 20
        while testshop.metrics()["http_connections_parked"] < count and time.monotonic() < deadline:
            time.sleep(0.2)
        memory = (testshop.memory() - before) * 1024 / count
        title = f"{count:,} idle connections, memory of each"
        yield row("connections.memory", title, "KiB", [memory], x=count)
    for connection in connections:
        connection.close()
