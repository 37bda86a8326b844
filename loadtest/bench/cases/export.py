"""The XLSX export: first byte, last byte, memory, and the same version again.

It is held against what it cannot do without: rust_xlsxwriter writing the same cells from memory (examples/workbook.rs), and the statement by itself
(COPY in binary to /dev/null).
"""
import re, subprocess

from load import first_and_last_byte, interleave, ratios, timed, values
from rows import row
from servers import EXAMPLES, ROOT, catalogue, new_version, psql, serving, shop

STATEMENT = (ROOT / "sql/products/list.sql").read_text()


def alone(products):
    out = subprocess.run([EXAMPLES / "workbook", str(products)], check=True, capture_output=True, text=True).stdout
    return float(re.search(r"([\d.]+) s", out).group(1))


def run(bench):
    for products in bench.sizes(1_000, 10_000, 100_000, 1_000_000):
        database = catalogue(products)
        with serving(shop(database)) as ours:
            ours.get("/api/me/")

            def export():
                new_version(database)
                idle = ours.memory()
                ours.forget_peak()
                found = first_and_last_byte(ours, "/api/products/export/")
                return {**found, "peak": ours.memory("VmHWM") - idle, "again": first_and_last_byte(ours, "/api/products/export/")["last"]}

            measures = {
                "export": export,
                "workbook": lambda: alone(products),
                "statement": lambda: timed(lambda: psql(database, f"copy ({STATEMENT}) to stdout (format binary)", "-o", "/dev/null")),
            }
            results = interleave(min(bench.rounds, 3) if products <= 100_000 else 1, measures)
        times = values(results["export"], "last")
        needed = [workbook + statement for workbook, statement in zip(results["workbook"], results["statement"])]
        yield row("export.first", f"{products:,} products, first byte", "s", values(results["export"], "first"), x=products)
        yield row("export.last", f"  last byte ({results['export'][0]['bytes'] / 1e6:,.1f} MB)", "s", times, x=products)
        yield row("export.workbook", "  rust_xlsxwriter alone, the same cells from memory", "s", results["workbook"], x=products, reference=products >= 100_000)
        yield row("export.statement", "  the statement alone", "s", results["statement"], x=products)
        yield row("export.ratio", "  ratio of the export to both together", "x", ratios(times, needed), x=products)
        yield row("export.memory", "  peak memory over idle", "MiB", values(results["export"], "peak"), x=products)
        yield row("export.again", "  the same version again", "s", values(results["export"], "again"), x=products)
