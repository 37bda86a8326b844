"""The list when no cache has it: from 100 to a million products, against psql running the same statement to /dev/null.

Before each read the version of the catalogue is moved on, so nothing that was kept can be used. Lists over 32 MiB (from about 140,000 products) are streamed.
"""
from load import first_and_last_byte, interleave, ratios, timed, values
from rows import row
from servers import ROOT, catalogue, new_version, psql, serving, shop

STATEMENT = (ROOT / "sql/products/list.sql").read_text()


def run(bench):
    for products in bench.sizes(100, 1_000, 10_000, 100_000, 1_000_000):
        database = catalogue(products)
        with serving(shop(database)) as ours:
            ours.get("/api/me/")
            idle = ours.memory()
            ours.forget_peak()

            def cold():
                new_version(database)
                found = first_and_last_byte(ours, "/api/products/")
                assert "fwd=miss" in found["cache"], found
                return found

            rounds = bench.rounds if products <= 100_000 else 2
            results = interleave(rounds, {"shop": cold, "psql": lambda: timed(lambda: psql(database, STATEMENT, "-o", "/dev/null"))})
            peak = ours.memory("VmHWM") - idle
        yield row("cold.first", f"{products:,} products, first byte", "s", values(results["shop"], "first"), x=products)
        yield row("cold.last", "  last byte", "s", values(results["shop"], "last"), x=products)
        yield row("cold.psql", "  psql, the same statement to /dev/null", "s", results["psql"], x=products, reference=products >= 10_000)
        yield row("cold.ratio", "  ratio of the last byte to psql", "x", ratios(values(results["shop"], "last"), results["psql"]), x=products)
        yield row("cold.memory", f"  peak memory over idle ({results['shop'][0]['bytes'] / 1e6:,.1f} MB of JSON)", "MiB", [peak], x=products)
