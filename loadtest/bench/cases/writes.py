"""Reads while somebody writes: a product's price changes every 100 ms, every 10 ms, and the list is read all the time.

Each write is a PATCH through the server's own API. After every tenth the writer reads the list and looks whether its price stands there.
"""
import json, sys, threading, time

from load import interleave, ratios, values, wrk
from rows import row
from servers import catalogue, peer, redis, serving, shop

PATH = "/api/products/"


class Writer(threading.Thread):
    """Changes product 1 at an interval of seconds."""

    def __init__(self, server, interval):
        super().__init__(daemon=True)
        self.server, self.interval = server, interval
        self.done = self.checked = self.stale = 0
        self.failed = None
        self.stop = threading.Event()

    def run(self):
        connection = self.server.connect()
        next_at = time.monotonic()
        while not self.stop.is_set():
            price = 1 + self.done % 9000
            connection.request("PATCH", PATH + "1/", body=json.dumps({"price": price}), headers={**self.server.headers, "Content-Type": "application/json"})
            reply = connection.getresponse()
            reply.read()
            if reply.status != 200:
                self.failed = reply.status
                return
            self.done += 1
            if self.done % 10 == 0:
                connection.request("GET", PATH, headers=self.server.headers)
                self.checked += 1
                self.stale += json.loads(connection.getresponse().read())[0]["price"] != price
            next_at = max(next_at + self.interval, time.monotonic())
            self.stop.wait(next_at - time.monotonic())


def reading(server, interval, seconds):
    """wrk's report, with what the writer did beside it."""
    if not interval:
        return {**wrk(server, PATH, seconds=seconds), "writes": 0, "checked": 0, "stale": 0}
    fills = lambda: server.metrics().get("cache_fills_total", 0)
    before, began, writer = fills(), time.monotonic(), Writer(server, interval)
    writer.start()
    report = wrk(server, PATH, seconds=seconds)
    writer.stop.set()
    writer.join()
    if writer.failed:
        sys.exit(f"bench: {server.name} answered a write with {writer.failed}")
    return {**report, "writes": writer.done / (time.monotonic() - began), "checked": writer.checked, "stale": writer.stale, "fills_per_write": (fills() - before) / max(writer.done, 1)}


def run(bench):
    database = catalogue(100)
    with serving(shop(database)) as ours:
        kinds = {"no writes": 0, "a write every 100 ms": 0.1, "a write every 10 ms": 0.01}
        results = interleave(bench.rounds, {name: lambda interval=interval: reading(ours, interval, bench.seconds) for name, interval in kinds.items()})
        for name in kinds:
            key = name.replace(" ", "_")
            yield row(f"writes.rate.{key}", f"TestShop, {name}", "req/s", values(results[name], "rate"), reference=name == "no writes")
            if name != "no writes":
                yield row(f"writes.ratio.{key}", "  ratio to its rate without writes", "x", ratios(values(results[name], "rate"), values(results["no writes"], "rate")))
                yield row(f"writes.done.{key}", "  writes that were done", "/s", values(results[name], "writes"))
                yield row(f"writes.fills.{key}", "  fills a write", "", values(results[name], "fills_per_write"))
                yield row(f"writes.stale.{key}", f"  stale lists, of {sum(values(results[name], 'checked'))} looked at after a write", "", [sum(values(results[name], "stale"))])
    for products in (100, 1_000):
        yield from against_peers(bench, products)


def against_peers(bench, products):
    if not bench.peers:
        return
    database = catalogue(products)
    # what a peer kept of another catalogue
    redis("FLUSHDB")
    servers = [shop(database), *(peer(name, database) for name in bench.peers)]
    with serving(*servers):
        measures = {server.name: lambda server=server: reading(server, 0.01, bench.seconds) for server in servers}
        results = interleave(max(bench.rounds // 2, 2), measures)
    for server in servers:
        name, found = server.name, results[server.name]
        yield row(f"writes.peers.rate.{name}", f"{products:,} products, {name}, a write every 10 ms", "req/s", values(found, "rate"), x=products)
        yield row(f"writes.peers.done.{name}", "  writes that were done", "/s", values(found, "writes"), x=products)
        yield row(f"writes.peers.stale.{name}", f"  stale lists, of {sum(values(found, 'checked'))} looked at after a write", "", [sum(values(found, "stale"))], x=products)
    for name in bench.peers:
        yield row(f"writes.peers.ratio.{name}", f"{products:,} products, TestShop against {name}", "x", ratios(values(results["TestShop"], "rate"), values(results[name], "rate")), x=products)

