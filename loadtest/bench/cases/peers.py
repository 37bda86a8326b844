"""The cached list of 100 products from the same work in other stacks, and from the limit of this one.

Each peer checks the token and serves the list that Redis holds, as its developers would write it; each is given the same database, the same Redis and
the same machine, and was seen to give the same JSON. What none of them does is to ask whether the list is still true.
"""
import json

from load import first_and_last_byte, interleave, ratios, values, wrk_costs
from rows import row
from servers import catalogue, limit, new_version, peer, redis, serving, shop

PATH, EXPORT = "/api/products/", "/api/products/export/"


def run(bench):
    database = catalogue(100)
    # what a peer kept of a list that others have changed since, it would go on serving
    redis("FLUSHDB")
    servers = [shop(database), *(peer(name, database) for name in bench.peers)]
    with serving(*servers):
        ours, *theirs = servers
        body = ours.get(PATH)[1]
        for server in theirs:
            assert json.loads(server.get(PATH)[1]) == json.loads(body), f"{server.name} gives another list"
        with serving(limit(body)) as bare:
            everyone = [bare, *servers]
            results = interleave(bench.rounds, {server.name: lambda server=server: wrk_costs(server, PATH, seconds=bench.seconds) for server in everyone})
        memory = {server.name: server.memory() for server in servers}
    for server in everyone:
        name = server.name
        yield row(f"peers.rate.{name}", f"{name}: cached list of 100", "req/s", values(results[name], "rate"), reference=name == "limit")
        yield row(f"peers.cpu.{name}", "  server's CPU for 1,000 requests", "s", values(results[name], "cpu"))
        if name in memory:
            yield row(f"peers.memory.{name}", "  memory of its processes", "MiB", [memory[name]])
        if name in bench.peers:
            yield row(f"peers.ratio.{name}", f"  TestShop against {name}", "x", ratios(values(results["TestShop"], "rate"), values(results[name], "rate")))
    yield from exports(bench)


def exports(bench):
    """100,000 products as XLSX, each server's own way."""
    database = catalogue(100_000)
    servers = [shop(database), *(peer(name, database) for name in bench.peers)]
    with serving(*servers):
        def measure(server):
            new_version(database)
            return first_and_last_byte(server, EXPORT)

        results = interleave(1, {server.name: lambda server=server: measure(server) for server in servers})
    for server in servers:
        yield row(f"peers.export.{server.name}", f"{server.name}: export of 100,000 products", "s", values(results[server.name], "last"))
        if server.name != "TestShop":
            yield row(f"peers.export_ratio.{server.name}", f"  {server.name} against TestShop", "x", ratios(values(results[server.name], "last"), values(results["TestShop"], "last")))
