"""Writes: products made and changed as fast as they are taken."""
from load import interleave, values, wrk_costs
from rows import row
from servers import catalogue, psql, serving, shop


def run(bench):
    database = catalogue(1_000)
    with serving(shop(database)) as ours:
        made = lambda script, connections: lambda: wrk_costs(ours, "/api/products/", connections=connections, seconds=bench.seconds, script=script)
        measures = {f"{what}, {connections} clients": made(script, connections) for what, script in [("POST", "create.lua"), ("PATCH", "patch.lua")] for connections in (1, 16)}
        results = interleave(min(bench.rounds, 3), measures)
    psql(database, "delete from products where name like 'Load %'")
    for name, found in results.items():
        yield row(f"changes.rate.{name}", f"{name}", "req/s", values(found, "rate"))
        yield row(f"changes.p99.{name}", "  99 of 100 within", "ms", values(found, "p99"))
