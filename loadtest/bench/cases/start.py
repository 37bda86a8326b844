"""From the start of the process to readiness; memory at rest; the size of the binary."""
import json, time

from rows import row
from servers import SHOP, Shop, catalogue, environment, serving


def run(bench):
    database, times, idle = catalogue(100), [], []
    for _ in range(bench.rounds):
        with serving(shop_at_once(database)) as ours:
            times.append(ours.ready - ours.began)
            idle.append(ours.memory())
    yield row("start.ready", "ready after", "s", times)
    yield row("start.memory", "memory at rest", "MiB", idle)
    yield row("start.binary", "size of the binary", "MB", [SHOP.stat().st_size / 1e6])


def shop_at_once(database):
    server = Shop("TestShop", [SHOP, "serve"], environment(database))
    while json.loads(server.request("GET", "/readyz")[1]).get("database") != "ok":
        pass
    server.ready = time.monotonic()
    return server
