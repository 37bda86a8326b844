"""The cached list beside the baseline: identity, gzip and 304.

The baseline (loadtest/baselines/bare_hyper.rs) is a bare hyper server that returns the same bytes for every request,
without authentication and without lookups. TestShop verifies the token, reads the catalogue version from PostgreSQL
after the request has arrived, logs and counts. With leases it uses a version read for a short time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from load import Sample, column, interleave, ratios, wrk_with_cpu
from options import Options
from rows import Row, row
from servers import (
    LEASE,
    PostgresCpu,
    TestShop,
    catalogue,
    leases_enabled,
    redis_commands,
    running,
    start_baseline,
    start_testshop,
    transactions,
)

PATH = "/api/products/"
GZIP = {"Accept-Encoding": "gzip"}
MEMORY_HITS = 'cache_hits_total{layer="memory"}'
# counter, title, unit
COUNTERS = [
    ("version_reads_total", "version reads", ""),
    ("transactions", "PostgreSQL transactions", ""),
    ("postgres_cpu", "PostgreSQL CPU", "s"),
    ("redis_commands", "Redis commands", ""),
    ("cache_fills_total", "fills", ""),
]


def run(options: Options) -> Iterator[Row]:
    for products in options.sizes(100, 1_000, 10_000):
        yield from measure(options, products)


def measure(options: Options, products: int) -> Iterator[Row]:
    database = catalogue(products)
    with leases_enabled(database):
        yield from compare_with_baseline(options, products, database)


def compare_with_baseline(options: Options, products: int, database: str) -> Iterator[Row]:
    testshop, leased = start_testshop(database), start_testshop(database, LEASE=LEASE)
    with running(testshop, leased):
        response, identity = testshop.get(PATH)
        compressed = testshop.get(PATH, GZIP)[1]
        bodies = {"identity": identity, "gzip": compressed, "304": b""}
        headers = {"identity": {}, "gzip": GZIP, "304": {"If-None-Match": response.headers["ETag"] or ""}}
        baselines = {kind: start_baseline(body) for kind, body in bodies.items()}
        with running(*baselines.values()):
            measures = {}
            for kind, baseline in baselines.items():
                load: dict[str, Any] = {"path": PATH, "seconds": options.seconds, "headers": headers[kind]}
                measures[f"baseline {kind}"] = partial(wrk_with_cpu, baseline, **load)
                measures[f"shop {kind}"] = partial(wrk_with_counters, testshop, database, **load)
                measures[f"leased {kind}"] = partial(wrk_with_cpu, leased, **load)
            results = interleave(options.rounds if products == 100 else max(2 * options.rounds // 3, 3), measures)
    for kind, body in bodies.items():
        title = f"{products:,} products, {kind}" + (f" ({len(body):,} bytes)" if body else "")
        shop, leases, baseline_samples = (results[f"{name} {kind}"] for name in ("shop", "leased", "baseline"))
        yield from compare(kind, title, products, shop, baseline_samples)
        ratio = ratios(column(leases, "rate"), column(baseline_samples, "rate"))
        cpu_ratio = ratios(column(leases, "cpu"), column(baseline_samples, "cpu"))
        yield row(f"list.leases.ratio.{kind}", "  with leases: ratio to the baseline", "x", ratio, x=products)
        yield row(f"list.leases.cpu_ratio.{kind}", "    ratio of server CPU", "x", cpu_ratio, x=products)
    samples = [sample for kind in bodies for sample in results[f"shop {kind}"]]
    thousands = sum(column(samples, MEMORY_HITS)) / 1000
    for name, title, unit in COUNTERS:
        value = sum(column(samples, name)) / thousands
        yield row(
            f"list.per_thousand.{name}", f"{products:,} products, {title} per 1,000 hits", unit, [value], x=products
        )


def wrk_with_counters(testshop: TestShop, database: str, **load: Any) -> Sample:
    """Runs wrk, and adds what the server and the databases have counted meanwhile."""
    before = counters(testshop, database)
    sample = wrk_with_cpu(testshop, **load)
    after = counters(testshop, database)
    return {
        **sample,
        **{name: after[name] - before[name] for name in (MEMORY_HITS, *(name for name, _, _ in COUNTERS))},
    }


def compare(kind: str, title: str, products: int, ours: list[Sample], theirs: list[Sample]) -> Iterator[Row]:
    rate, baseline_rate = column(ours, "rate"), column(theirs, "rate")
    cpu_ratio = ratios(column(ours, "cpu"), column(theirs, "cpu"))
    yield row(f"list.rate.{kind}", title, "req/s", rate, x=products)
    yield row(f"list.baseline.{kind}", "  baseline, same bytes", "req/s", baseline_rate, x=products, reference=True)
    yield row(f"list.ratio.{kind}", "  ratio to the baseline", "x", ratios(rate, baseline_rate), x=products)
    yield row(f"list.cpu.{kind}", "  server CPU per 1,000 requests", "s", column(ours, "cpu"), x=products)
    yield row(f"list.user.{kind}", "  user-mode CPU", "s", column(ours, "user"), x=products)
    yield row(f"list.baseline_user.{kind}", "  user-mode CPU of the baseline", "s", column(theirs, "user"), x=products)
    yield row(f"list.cpu_ratio.{kind}", "  ratio of server CPU to the baseline", "x", cpu_ratio, x=products)


def counters(testshop: TestShop, database: str) -> dict[str, float]:
    return {
        **testshop.metrics(),
        "transactions": transactions(database),
        "redis_commands": redis_commands(),
        "postgres_cpu": PostgresCpu().seconds(),
    }
