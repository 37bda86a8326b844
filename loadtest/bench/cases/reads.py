"""Single products, pages and searches.

With the cache by wrk (64 connections); without any cache one request at a time, on a million products.
"""

from __future__ import annotations

import http.client
import random
import re
import statistics
import time
from collections.abc import Iterator
from functools import partial

from load import column, interleave, wrk_with_cpu
from options import Options
from rows import Row, row
from servers import Server, catalogue, running, start_baseline, start_testshop

REQUESTS, QUICK_REQUESTS = 300, 100
PATH = "/api/products/"


def run(options: Options) -> Iterator[Row]:
    testshop = start_testshop(catalogue(10_000))
    cases = {
        "product": ("one product", PATH, "one.lua"),
        "page": ("page of 100, cached", f"{PATH}?page_size=100", "json.lua"),
        "search": ("search, cached", f"{PATH}?search=sturdy+kettle&page_size=20", "json.lua"),
    }
    with running(testshop):
        measures = {
            key: partial(wrk_with_cpu, testshop, path, seconds=options.seconds, script=script)
            for key, (_, path, script) in cases.items()
        }
        for key, samples in interleave(min(options.rounds, 3), measures).items():
            yield row(f"reads.rate.{key}", f"{cases[key][0]}, of 10,000", "req/s", column(samples, "rate"))
            yield row(f"reads.cpu.{key}", "  server CPU per 1,000 requests", "s", column(samples, "cpu"))
    products = 10_000 if options.quick else 1_000_000
    yield from uncached(products, QUICK_REQUESTS if options.quick else REQUESTS)


class PageReader:
    """Reads pages over one connection."""

    def __init__(self, server: Server) -> None:
        self.connection, self.headers = server.connect(), server.headers

    def read(self, path: str) -> tuple[float, http.client.HTTPResponse]:
        """Duration in ms, and the response."""
        started = time.monotonic()
        self.connection.request("GET", path, headers=self.headers)
        response = self.connection.getresponse()
        body = response.read()
        assert response.status == 200, body[:300]
        return (time.monotonic() - started) * 1000, response


def query(kind: str, rng: random.Random) -> str:
    category = rng.choice(["Sport", "Books", "Tea"])
    price = rng.randrange(10_000)
    adjective = rng.choice(["sturdy", "light", "bright", "quiet", "handy"])
    noun = rng.choice(["kettle", "lamp", "chair", "camera"])
    queries = {
        "id": "ordering=id",
        "price": f"ordering=-price&price_max={price}",
        "category": f"category={category}&ordering=name",
        "tag": f"tag={rng.choice(['eco', 'new', 'gift'])}",
        "tags": f"tag=eco&tag=summer&ordering={rng.choice(['price', 'name', '-created_at'])}",
        "combined": f"category={category}&tag=eco&price_min={price}&ordering=price",
        "untagged": f"category=Sport&tag=eco&ordering={rng.choice(['price', 'name', '-created_at'])}",
        "search": f"search={adjective}+{noun}",
        "short": f"search={rng.choice(['zq', 'qj', 'k+zq'])}&ordering={rng.choice(['id', 'price'])}",
    }
    return queries[kind]


def uncached(products: int, requests: int) -> Iterator[Row]:
    testshop = start_testshop(catalogue(products), CACHE_MODE="off")
    titles = {
        "id": "by id",
        "price": "by price, descending",
        "category": "one category",
        "tag": "one tag",
        "tags": "two tags",
        "combined": "category, tag and price",
        "untagged": "a category without the tag",
        "search": "search for two words",
        "short": "search for two letters that no product has",
    }
    with running(testshop):
        reader, rng = PageReader(testshop), random.Random(1)
        for kind, title in titles.items():
            count = requests // 10 if kind == "short" else requests
            times = [reader.read(f"{PATH}?page_size=100&{query(kind, rng)}")[0] for _ in range(count)]
            what = f"page of 100 of {products:,}, uncached, {title}"
            yield row(f"reads.uncached.{kind}", what, "ms", [statistics.median(times)])
            yield row(f"reads.uncached_p99.{kind}", "  p99", "ms", [sorted(times)[-(len(times) // 100) - 1]])
        yield row("reads.walk", "  keyset walk of all products, pages of 1,000", "rows/s", [walk_rate(reader)])
        page = testshop.get(f"{PATH}?page_size=1000")[1]
    baseline = start_baseline(page)
    with running(baseline):
        rate = same_page_rate(PageReader(baseline), requests)
        yield row("reads.walk_baseline", "  the first of these pages, from bare hyper", "rows/s", [rate])


def same_page_rate(reader: PageReader, requests: int) -> float:
    """Rows per second of requests for one page of 1,000."""
    return 1_000_000 / statistics.mean(reader.read(PATH)[0] for _ in range(requests))


def walk_rate(reader: PageReader) -> float:
    """Rows per second of a walk along the `next` links."""
    path, rows, started = f"{PATH}?page_size=1000", 0, time.monotonic()
    while path:
        response = reader.read(path)[1]
        rows += 1000
        link = re.search(r'<([^>]+)>; rel="next"', response.headers.get("Link") or "")
        path = link.group(1) if link else ""
    return rows / (time.monotonic() - started)
