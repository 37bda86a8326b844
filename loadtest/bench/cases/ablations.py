"""The effect of each optimisation, with it switched off or beside the usual alternative.

CACHE_MODE switches cache layers off. The other alternatives are measured directly: N+1 queries as SQL beside the
single statement, one version read per request beside batched reads, and the cost of one compression.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from load import Sample, column, download, interleave, timed, wrk_with_cpu
from options import Options
from rows import Row, row
from servers import ROOT, bump_version, catalogue, pgbench, running, start_testshop

PATH, PRODUCT_PATH = "/api/products/", "/api/products/1/"
SCRIPTS = ROOT / "loadtest/sql"


def run(options: Options) -> Iterator[Row]:
    yield from cache_layers(options)
    yield from n_plus_one(options)
    yield from version_reads(options)
    yield from concurrent_misses()
    yield from compression()
    yield from latency_during_fill()


def cache_layers(options: Options) -> Iterator[Row]:
    for products in options.sizes(100, 1_000):
        database = catalogue(products)
        servers = {mode: start_testshop(database, CACHE_MODE=mode) for mode in ("full", "redis", "off")}
        with running(*servers.values()):
            measures = {
                mode: partial(wrk_with_cpu, server, PATH, seconds=options.seconds) for mode, server in servers.items()
            }
            results = interleave(min(options.rounds, 3), measures)
        for mode, samples in results.items():
            title = f"{products:,} products, CACHE_MODE={mode}"
            yield row(f"ablations.cache.{mode}", title, "req/s", column(samples, "rate"), x=products)


def statement_time(database: str, script: Path, seconds: int) -> float:
    """Mean duration of a script in ms."""
    return 1000 / pgbench(database, script, seconds=seconds)


def n_plus_one(options: Options) -> Iterator[Row]:
    """The list of 100 in one statement, and in the 1 + 100 + 100 statements of an ORM without prefetching."""
    database = catalogue(100)
    scripts = {
        "single": ROOT / "sql/products/list.sql",
        "ids": SCRIPTS / "list-ids.sql",
        "category": SCRIPTS / "category-of-one.sql",
        "tags": SCRIPTS / "tags-of-one.sql",
    }
    measures = {name: partial(statement_time, database, script, options.seconds) for name, script in scripts.items()}
    times = interleave(3, measures)
    rounds = zip(times["ids"], times["category"], times["tags"], strict=True)
    total = [ids + 100 * (category + tags) for ids, category, tags in rounds]
    yield row("ablations.single_statement", "list of 100, single statement", "ms", times["single"])
    yield row("ablations.n_plus_one", "  N+1: 201 sequential statements", "ms", total)


def version_reads(options: Options) -> Iterator[Row]:
    """One version read per request cannot be faster than PostgreSQL answers that statement to 64 clients."""
    database = catalogue(100)
    testshop = start_testshop(database)

    def unbatched() -> Sample:
        return {"rate": pgbench(database, ROOT / "sql/versions/read.sql", connections=64, seconds=options.seconds)}

    def batched() -> Sample:
        return wrk_with_cpu(testshop, PATH, seconds=options.seconds)

    with running(testshop):
        measures = {"unbatched": unbatched, "batched": batched}
        results = interleave(3, measures)
    title = "one version read per request, PostgreSQL alone, 64 clients"
    yield row("ablations.unbatched", title, "/s", column(results["unbatched"], "rate"))
    title = "  list of 100 with batched version reads, 64 clients"
    yield row("ablations.batched", title, "req/s", column(results["batched"], "rate"))


def concurrent_misses() -> Iterator[Row]:
    """64 clients request a list that has just become out of date."""
    database = catalogue(10_000)
    testshop = start_testshop(database)
    with running(testshop):
        testshop.get(PATH)
        fills = []
        for _ in range(5):
            before = testshop.metrics()["cache_fills_total"]
            bump_version(database)
            threads = [threading.Thread(target=testshop.get, args=(PATH,)) for _ in range(64)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            fills.append(testshop.metrics()["cache_fills_total"] - before)
    yield row("ablations.concurrent_misses", "64 concurrent misses of one version, fills", "", fills)


def compression() -> Iterator[Row]:
    """The cost of one compression; with one per request it would limit the rate of a core."""
    testshop = start_testshop(catalogue(1_000))
    with running(testshop):
        body = testshop.get(PATH)[1]
        before = testshop.metrics()["cache_compressions_total"]
        report = wrk_with_cpu(testshop, PATH, seconds=2, headers={"Accept-Encoding": "gzip"})
        compressions = testshop.metrics()["cache_compressions_total"] - before
    times = [timed(lambda: gzip.compress(body, 4)) * 1000 for _ in range(5)]
    yield row("ablations.compression", f"one gzip of the list of 1,000 ({len(body) / 1e3:.0f} kB)", "ms", times)
    title = f"  compressions during {report['requests']:,} gzip responses"
    yield row("ablations.compressions", title, "", [compressions])


def latency_during_fill() -> Iterator[Row]:
    """Reads of one product while the list of 100,000 is loaded: other requests do not wait for a fill."""
    database = catalogue(100_000)
    testshop = start_testshop(database)

    def read_one() -> float:
        return timed(lambda: testshop.get(PRODUCT_PATH)) * 1000

    with running(testshop):
        testshop.get(PRODUCT_PATH)
        idle = [read_one() for _ in range(200)]
        busy = []
        for _ in range(3):
            bump_version(database)
            fill = threading.Thread(target=download, args=(testshop, PATH))
            fill.start()
            while fill.is_alive():
                busy.append(read_one())
    yield row("ablations.read_idle", "one product, idle server, p99", "ms", [sorted(idle)[-3]])
    title = "  during a fill of 100,000 products, p99"
    yield row("ablations.read_during_fill", title, "ms", [sorted(busy)[-len(busy) // 100 - 1]])
