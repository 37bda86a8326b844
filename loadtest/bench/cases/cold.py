"""The uncached list, from 100 to 1,000,000 products, beside psql running the same statement to /dev/null.

Each read follows a change of everything, so all products are read. Of lists above 32 MiB (about 140,000 products) only
the compressed form is kept. A request that has waited 5 s is served from the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from load import Sample, column, download, interleave, ratios, timed
from options import Options
from rows import Row, row
from servers import ROOT, TestShop, bump_version, catalogue, psql, running, start_testshop

STATEMENT = (ROOT / "sql/products/list.sql").read_text()


def cold_list(testshop: TestShop, database: str) -> Sample:
    bump_version(database)
    transfer = download(testshop, "/api/products/")
    assert "fwd=miss" in transfer.cache_status, transfer
    return {"first": transfer.first, "last": transfer.last, "size": transfer.size}


def run_psql(database: str) -> Sample:
    return {"last": timed(lambda: psql(database, STATEMENT, "-o", "/dev/null"))}


def run(options: Options) -> Iterator[Row]:
    for products in options.sizes(100, 1_000, 10_000, 100_000, 1_000_000):
        database = catalogue(products)
        testshop = start_testshop(database)
        with running(testshop):
            testshop.get("/api/me/")
            idle = testshop.memory()
            testshop.reset_peak_memory()
            rounds = options.rounds if products <= 100_000 else 2
            measures = {"shop": partial(cold_list, testshop, database), "psql": partial(run_psql, database)}
            results = interleave(rounds, measures)
            peak = testshop.memory("VmHWM") - idle
        ours, psql_times = results["shop"], column(results["psql"], "last")
        last = column(ours, "last")
        memory = f"  peak memory above idle ({ours[0]['size'] / 1e6:,.1f} MB of JSON)"
        reference = products >= 10_000
        yield row("cold.first", f"{products:,} products, first byte", "s", column(ours, "first"), x=products)
        yield row("cold.last", "  last byte", "s", last, x=products)
        yield row("cold.psql", "  psql, same statement to /dev/null", "s", psql_times, x=products, reference=reference)
        yield row("cold.ratio", "  ratio of the last byte to psql", "x", ratios(last, psql_times), x=products)
        yield row("cold.memory", memory, "MiB", [peak], x=products)
