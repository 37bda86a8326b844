"""PostgreSQL at a distance: a proxy delays what the server and PostgreSQL send each other, with and without leases.

Each round measures the same load with `LEASE=0s`, with a lease, and for the list on a bare hyper server that returns
the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

from load import Sample, column, interleave, ratios, wrk
from options import Options
from rows import Row, row
from servers import (
    LEASE,
    Server,
    TestShop,
    catalogue,
    database_url_through,
    leases_enabled,
    psql,
    round_trip,
    running,
    start_baseline,
    start_delay_proxy,
    start_testshop,
)

PATH = "/api/products/"
PRODUCTS = 100
CLIENTS = (1, 8, 64)


class Work(NamedTuple):
    """What wrk requests."""

    title: str
    path: str
    script: str = "json.lua"
    headers: Mapping[str, str] = {}


def hits(etag: str) -> dict[str, Work]:
    return {
        "list": Work(f"list of {PRODUCTS}", PATH),
        "304": Work("304", PATH, headers={"If-None-Match": etag}),
    }


# measured at one distance
OTHERS = {
    "one": Work("one product", f"{PATH}1/"),
    "page": Work("page", f"{PATH}?page_size=20&ordering=price"),
    "login": Work("login", "/api/login/", "login.lua"),
    "create": Work("create", PATH, "create.lua"),
}


def run(options: Options) -> Iterator[Row]:
    database = catalogue(PRODUCTS)
    with leases_enabled(database):
        for delay in (0, 0.5) if options.quick else (0, 0.25, 0.5, 2.5):
            yield from at_distance(options, database, delay)


def at_distance(options: Options, database: str, delay: float) -> Iterator[Row]:
    """`delay` in ms, of each direction."""
    proxy = start_delay_proxy(delay)
    with running(proxy):
        url = database_url_through(proxy, database)
        servers = {
            "off": start_testshop(database, DATABASE_URL=url, LEASE="0s"),
            "on": start_testshop(database, DATABASE_URL=url, LEASE=LEASE),
        }
        with running(*servers.values()):
            response, body = servers["on"].get(PATH)
            baseline = start_baseline(body)
            with running(baseline):
                yield row("distance.round_trip", "round trip to PostgreSQL", "ms", [round_trip(proxy)], x=key_of(delay))
                for clients in CLIENTS:
                    works = hits(response.headers["ETag"] or "")
                    yield from compare(servers, works, clients, delay, min(options.rounds, 5), baseline)
            if delay == 0.5:
                for clients in CLIENTS:
                    yield from compare(servers, OTHERS, clients, delay, 2)
                psql(database, "delete from products where name like 'Load %'")


def key_of(delay: float) -> int:
    """The position in a plot: both directions, in microseconds."""
    return round(2000 * delay)


def compare(
    servers: Mapping[str, TestShop],
    works: Mapping[str, Work],
    clients: int,
    delay: float,
    rounds: int,
    baseline: Server | None = None,
) -> Iterator[Row]:
    """The rates without and with leases, round by round."""
    measures = {
        (name, lease): partial(measure, server, work, clients)
        for name, work in works.items()
        for lease, server in servers.items()
    }
    if baseline:
        measures["list", "baseline"] = partial(measure, baseline, works["list"], clients)
    named = {" ".join(key): run for key, run in measures.items()}
    results = interleave(rounds, named)
    x = key_of(delay)
    for name, work in works.items():
        title = f"{delay} ms each way, {clients} clients, {work.title}"
        rates = {lease: column(results[f"{name} {lease}"], "rate") for lease in servers}
        for lease, rate in rates.items():
            yield row(f"distance.{name}.{lease}.{clients}", f"{title}, leases {lease}", "req/s", rate, x=x)
        gain = ratios(rates["on"], rates["off"])
        yield row(f"distance.{name}.gain.{clients}", "  ratio of both", "x", gain, x=x)
        median = ratios(column(results[f"{name} on"], "p50"), column(results[f"{name} off"], "p50"))
        yield row(f"distance.{name}.p50_ratio.{clients}", "  ratio of the median latencies", "x", median, x=x)
        if name == "list":
            limit = column(results["list baseline"], "rate")
            for lease, rate in rates.items():
                share = ratios(rate, limit)
                yield row(f"distance.limit.{lease}.{clients}", f"  leases {lease}, ratio to hyper", "x", share, x=x)


def measure(server: Server, work: Work, clients: int) -> Sample:
    return wrk(server, work.path, clients, 1, work.script, work.headers)
