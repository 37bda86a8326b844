"""The XLSX export: first byte, last byte, peak memory, and a repeat at the same version.

The lower bound is the sum of its parts: rust_xlsxwriter writing the same cells from memory
(loadtest/baselines/workbook.rs), and the statement alone (binary COPY to /dev/null).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial

from load import Sample, column, download, interleave, ratios, timed
from options import Options
from rows import Row, row
from servers import EXAMPLES, ROOT, TestShop, bump_version, catalogue, number_in, psql, running, start_testshop

PATH = "/api/products/export/"
STATEMENT = (ROOT / "sql/products/list.sql").read_text()


def export(testshop: TestShop, database: str) -> Sample:
    bump_version(database)
    idle = testshop.memory()
    testshop.reset_peak_memory()
    transfer = download(testshop, PATH)
    peak = testshop.memory("VmHWM") - idle
    repeat = download(testshop, PATH).last
    return {"first": transfer.first, "last": transfer.last, "size": transfer.size, "peak": peak, "repeat": repeat}


def write_workbook(products: int) -> Sample:
    command = [str(EXAMPLES / "workbook"), str(products)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {"last": number_in(r"([\d.]+) s", output)}


def copy_rows(database: str) -> Sample:
    copy = f"copy ({STATEMENT}) to stdout (format binary)"
    return {"last": timed(lambda: psql(database, copy, "-o", "/dev/null"))}


def run(options: Options) -> Iterator[Row]:
    for products in options.sizes(1_000, 10_000, 100_000, 1_000_000):
        database = catalogue(products)
        testshop = start_testshop(database)
        with running(testshop):
            testshop.get("/api/me/")
            measures = {
                "export": partial(export, testshop, database),
                "workbook": partial(write_workbook, products),
                "statement": partial(copy_rows, database),
            }
            results = interleave(min(options.rounds, 3) if products <= 100_000 else 1, measures)
        ours = results["export"]
        last, workbook, statement = (column(results[name], "last") for name in ("export", "workbook", "statement"))
        parts = [a + b for a, b in zip(workbook, statement, strict=True)]
        title = "  rust_xlsxwriter alone, same cells from memory"
        yield row("export.first", f"{products:,} products, first byte", "s", column(ours, "first"), x=products)
        yield row("export.last", f"  last byte ({ours[0]['size'] / 1e6:,.1f} MB)", "s", last, x=products)
        yield row("export.workbook", title, "s", workbook, x=products, reference=products >= 100_000)
        yield row("export.statement", "  statement alone", "s", statement, x=products)
        yield row("export.ratio", "  ratio of the last byte to the sum of both", "x", ratios(last, parts), x=products)
        yield row("export.memory", "  peak memory above idle", "MiB", column(ours, "peak"), x=products)
        yield row("export.repeat", "  repeat at the same version", "s", column(ours, "repeat"), x=products)
