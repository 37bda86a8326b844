"""What each part is worth: taken away, or held against the way it is usually done.

CACHE_MODE takes layers of the cache away. What the server has no switch for is measured by itself: N+1 queries as SQL against the one statement, version
reads one a request against one a batch, compression once a request against once a version.
"""
import gzip, threading, time

from load import first_and_last_byte, interleave, timed, values, wrk_costs
from rows import row
from servers import ROOT, catalogue, new_version, pgbench, psql, serving, shop

PATH = "/api/products/"
SCRIPTS = ROOT / "loadtest/sql"


def run(bench):
    yield from cache(bench)
    yield from statements(bench)
    yield from versions(bench)
    yield from stampede()
    yield from compression()
    yield from beside_a_fill()


def cache(bench):
    for products in bench.sizes(100, 1_000):
        database = catalogue(products)
        servers = {mode: shop(database, CACHE_MODE=mode) for mode in ("full", "redis", "off")}
        with serving(*servers.values()):
            results = interleave(min(bench.rounds, 3), {mode: lambda server=server: wrk_costs(server, PATH, seconds=bench.seconds) for mode, server in servers.items()})
        for mode, found in results.items():
            yield row(f"layers.cache.{mode}", f"{products:,} products, CACHE_MODE={mode}", "req/s", values(found, "rate"), x=products)


def statements(bench):
    """The list of 100 in one statement, and in the 1 + 100 + 100 that an ORM makes of it when nobody looks."""
    database = catalogue(100)
    scripts = {"one": ROOT / "sql/products/list.sql", "ids": SCRIPTS / "list-ids.sql", "category": SCRIPTS / "category-of-one.sql", "tags": SCRIPTS / "tags-of-one.sql"}
    found = interleave(3, {name: lambda script=script: 1000 / pgbench(database, script, seconds=bench.seconds) for name, script in scripts.items()})
    yield row("layers.one_statement", "list of 100: the one statement", "ms", found["one"])
    yield row("layers.n_plus_one", "  N+1: 201 statements, one after the other", "ms", [ids + 100 * (category + tags) for ids, category, tags in zip(found["ids"], found["category"], found["tags"])])


def versions(bench):
    """A version read a request is at most as fast as PostgreSQL answers that one statement to 64 clients."""
    database = catalogue(100)
    with serving(shop(database)) as ours:
        measures = {"unbatched": lambda: pgbench(database, ROOT / "sql/versions/read.sql", connections=64, seconds=bench.seconds), "batched": lambda: wrk_costs(ours, PATH, seconds=bench.seconds)}
        found = interleave(3, measures)
    yield row("layers.unbatched", "version reads, one a request: PostgreSQL alone answers 64 clients", "/s", found["unbatched"])
    yield row("layers.batched", "  the list of 100 with batched version reads, 64 clients", "req/s", values(found["batched"], "rate"))


def stampede():
    """64 clients ask for a list that has just become out of date."""
    database = catalogue(10_000)
    with serving(shop(database)) as ours:
        ours.get(PATH)
        fills = []
        for _ in range(5):
            before = ours.metrics()["cache_fills_total"]
            new_version(database)
            threads = [threading.Thread(target=ours.get, args=(PATH,)) for _ in range(64)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            fills.append(ours.metrics()["cache_fills_total"] - before)
    yield row("layers.stampede", "64 clients ask for the same new version: fills", "", fills)


def compression():
    """What one compression of the list costs; per request it would be the most that one core can serve."""
    database = catalogue(1_000)
    with serving(shop(database)) as ours:
        body = ours.get(PATH)[1]
        before = ours.metrics()["cache_compressions_total"]
        rate = wrk_costs(ours, PATH, seconds=2, headers={"Accept-Encoding": "gzip"})
        made = ours.metrics()["cache_compressions_total"] - before
    times = [timed(lambda: gzip.compress(body, 4)) * 1000 for _ in range(5)]
    yield row("layers.compression", f"gzip of the list of 1,000 ({len(body) / 1e3:.0f} kB), once", "ms", times)
    yield row("layers.compressions", f"  compressions during {rate['requests']:,} gzip answers", "", [made])


def beside_a_fill():
    """Another list's hits while a list of 100,000 is made from the database: nobody waits for somebody else's fill."""
    database = catalogue(100_000)
    with serving(shop(database)) as ours:
        ours.get("/api/products/1/")
        quiet = [timed(lambda: ours.get("/api/products/1/")) * 1000 for _ in range(200)]
        busy = []
        for _ in range(3):
            new_version(database)
            filling = threading.Thread(target=first_and_last_byte, args=(ours, PATH))
            filling.start()
            while filling.is_alive():
                busy.append(timed(lambda: ours.get("/api/products/1/")) * 1000)
    yield row("layers.beside_nothing", "one product, nothing else to do: 99 of 100 within", "ms", [sorted(quiet)[-3]])
    yield row("layers.beside_a_fill", "  while a list of 100,000 is made: 99 of 100 within", "ms", [sorted(busy)[-len(busy) // 100 - 1]])
