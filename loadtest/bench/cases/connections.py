"""From one connection to 8,000: throughput, and what a connection that waits costs in memory."""
import resource, socket, time
from urllib.parse import urlsplit

from load import interleave, values, wrk
from rows import row
from servers import catalogue, limit, serving, shop

IDLE = [1_000, 4_000, 8_000]


def run(bench):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    database = catalogue(100)
    with serving(shop(database, MAX_CONNECTIONS=10_000)) as ours:
        body = ours.get("/api/products/")[1]
        with serving(limit(body)) as bare:
            for connections in (1, 8, 64, 512, 4_096, 8_000):
                if connections + 100 > hard:
                    continue
                measure = lambda server: lambda: wrk(server, "/api/products/", connections=connections, seconds=bench.seconds if connections < 1000 else 4)
                results = interleave(min(bench.rounds, 3), {"shop": measure(ours), "limit": measure(bare)})
                yield row("connections.rate", f"{connections:,} connections", "req/s", values(results["shop"], "rate"), x=connections)
                yield row("connections.limit", "  the limit", "req/s", values(results["limit"], "rate"), x=connections)
                yield row("connections.p99", "  99 of 100 within", "ms", values(results["shop"], "p99"), x=connections)
    with serving(shop(database, MAX_CONNECTIONS=10_000)) as ours:
        yield from idle(ours, [count for count in IDLE if count + 100 <= hard])


def idle(ours, counts):
    """Each has made one request and waits for its next, for long enough to rest."""
    parts, open_ones = urlsplit(ours.url), []
    head = f"GET /api/products/1/ HTTP/1.1\r\nHost: shop\r\nAuthorization: {ours.headers['Authorization']}\r\n\r\n".encode()
    ours.get("/api/products/1/")
    before = ours.memory()
    for count in counts:
        while len(open_ones) < count:
            link = socket.create_connection((parts.hostname, parts.port), timeout=30)
            link.sendall(head)
            assert link.recv(65536).startswith(b"HTTP/1.1 200")
            open_ones.append(link)
        deadline = time.monotonic() + 20
        while ours.metrics()["http_connections_resting"] < count and time.monotonic() < deadline:
            time.sleep(0.2)
        yield row("connections.memory", f"{count:,} connections at rest: memory of each", "KiB", [(ours.memory() - before) * 1024 / count], x=count)
    for link in open_ones:
        link.close()
