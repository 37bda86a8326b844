"""The cached list against the limit of the stack: identity, gzip, 304.

The limit is examples/limit.rs: a bare hyper server that answers every request with the same bytes, asks nobody who is calling and looks nothing up.
The shop checks the token, reads the catalogue's version from PostgreSQL after the request has arrived, logs and counts.
"""
from load import interleave, ratios, values, wrk_costs
from rows import row
from servers import PostgresCpu, catalogue, limit, psql, redis_commands, serving, shop

GZIP = {"Accept-Encoding": "gzip"}


def run(bench):
    for products in bench.sizes(100, 1_000, 10_000):
        yield from at(bench, products)


def at(bench, products):
    database, path = catalogue(products), "/api/products/"
    with serving(shop(database)) as ours:
        reply, body = ours.get(path)
        packed = ours.get(path, **GZIP)[1]
        unchanged = {"If-None-Match": reply.headers["ETag"]}
        with serving(limit(body), limit(packed), limit(b"")) as (identity, gzip, empty):
            costs = lambda server, headers=None: lambda: wrk_costs(server, path, seconds=bench.seconds, headers=headers)
            kinds = {"identity": (identity, None), "gzip": (gzip, GZIP), "304": (empty, unchanged)}
            before = counters(ours, database)
            measures = {}
            for name, (other, headers) in kinds.items():
                measures[f"limit {name}"], measures[f"shop {name}"] = costs(other), costs(ours, headers)
            results = interleave(bench.rounds if products == 100 else 3, measures)
            after = counters(ours, database)
    sizes = {"identity": len(body), "gzip": len(packed), "304": 0}
    for name, size in sizes.items():
        ours, theirs = results[f"shop {name}"], results[f"limit {name}"]
        what = f"{products:,} products, {name}" + (f" ({size:,} bytes)" if size else "")
        yield row(f"list.rate.{name}", what, "req/s", values(ours, "rate"), x=products)
        yield row(f"list.limit.{name}", "  the limit with the same bytes", "req/s", values(theirs, "rate"), x=products, reference=True)
        yield row(f"list.ratio.{name}", "  ratio to the limit", "x", ratios(values(ours, "rate"), values(theirs, "rate")), x=products)
        yield row(f"list.cpu.{name}", "  server's CPU for 1,000 requests", "s", values(ours, "cpu"), x=products)
        yield row(f"list.user.{name}", "  outside the kernel", "s", values(ours, "user"), x=products)
        yield row(f"list.limit_user.{name}", "  the limit's outside the kernel", "s", values(theirs, "user"), x=products)
        yield row(f"list.cpu_ratio.{name}", "  ratio of all its CPU to the limit's", "x", ratios(values(ours, "cpu"), values(theirs, "cpu")), x=products)
    change = {name: after[name] - before[name] for name in after}
    thousands = change["cache_hits_memory_total"] / 1000
    for name, what in [("version_reads_total", "version reads"), ("statements", "statements of PostgreSQL, all"), ("postgres_cpu", "CPU of PostgreSQL, s"),
                       ("redis", "commands of Redis"), ("cache_fills_total", "fills")]:
        yield row(f"list.per_thousand.{name}", f"{products:,} products: {what} for 1,000 hits", "", [change[name] / thousands], x=products)


def counters(ours, database):
    statements = psql(database, f"select coalesce(sum(xact_commit), 0) from pg_stat_database where datname = '{database}'")
    return {**ours.metrics(), "statements": int(statements), "redis": redis_commands(), "postgres_cpu": PostgresCpu().seconds()}
