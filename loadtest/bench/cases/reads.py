"""One product, pages, searches: what is not the whole list.

Through the cache with wrk (64 connections); and without any cache, one request after the other, at a million products.
"""
import random, re, statistics, time

from load import interleave, values, wrk, wrk_costs
from rows import row
from servers import catalogue, serving, shop

REQUESTS = 300


def run(bench):
    database = catalogue(10_000)
    with serving(shop(database)) as ours:
        measures = {
            "one product": lambda: wrk_costs(ours, "/api/products/", seconds=bench.seconds, script="one.lua"),
            "a page of 100, cached": lambda: wrk_costs(ours, "/api/products/?page_size=100", seconds=bench.seconds),
            "a search, cached": lambda: wrk_costs(ours, "/api/products/?search=sturdy+kettle&page_size=20", seconds=bench.seconds),
        }
        for name, found in interleave(min(bench.rounds, 3), measures).items():
            yield row(f"reads.rate.{name}", f"{name}, of 10,000", "req/s", values(found, "rate"))
            yield row(f"reads.cpu.{name}", "  server's CPU for 1,000 requests", "s", values(found, "cpu"))
    yield from uncached(catalogue(10_000 if bench.quick else 1_000_000), REQUESTS if not bench.quick else 100)


def uncached(database, requests):
    products = int(database.removeprefix("load_"))
    with serving(shop(database, CACHE_MODE="off")) as ours:
        connection = ours.connect()

        def page(address):
            began = time.monotonic()
            connection.request("GET", address, headers=ours.headers)
            reply = connection.getresponse()
            body = reply.read()
            assert reply.status == 200, body[:300]
            return (time.monotonic() - began) * 1000, reply

        dice = random.Random(1)
        words = lambda: dice.choice(["sturdy", "light", "bright", "quiet", "handy"]) + "+" + dice.choice(["kettle", "lamp", "chair", "camera"])
        kinds = {
            "by id": lambda: "ordering=id",
            "by price, down": lambda: f"ordering=-price&price_max={dice.randrange(10_000)}",
            "one category": lambda: f"category={dice.choice(['Sport', 'Books', 'Tea'])}&ordering=name",
            "one tag": lambda: f"tag={dice.choice(['eco', 'new', 'gift'])}",
            "category, tag and price": lambda: f"category={dice.choice(['Sport', 'Books', 'Tea'])}&tag=eco&price_min={dice.randrange(10_000)}&ordering=price",
            "a search of two words": lambda: f"search={words()}",
        }
        for name, query in kinds.items():
            times = [page(f"/api/products/?page_size=100&{query()}")[0] for _ in range(requests)]
            yield row(f"reads.uncached.{name}", f"a page of 100 of {products:,}, uncached, {name}", "ms", [statistics.median(times)])
            yield row(f"reads.uncached_p99.{name}", "  99 of 100 within", "ms", [sorted(times)[-(len(times) // 100) - 1]])
        address, rows, began = "/api/products/?page_size=1000", 0, time.monotonic()
        while address:
            _, reply = page(address)
            rows += 1000
            found = re.search(r'<([^>]+)>; rel="next"', reply.headers.get("Link") or "")
            address = found and found.group(1)
        yield row("reads.walk", "  keyset walk through all of them in pages of 1,000", "rows/s", [rows / (time.monotonic() - began)])
