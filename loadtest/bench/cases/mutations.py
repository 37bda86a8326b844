"""Creating and updating products at full speed, with 1 and 16 clients."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from load import column, interleave, wrk_with_cpu
from options import Options
from rows import Row, row
from servers import catalogue, psql, running, start_testshop


def run(options: Options) -> Iterator[Row]:
    database = catalogue(1_000)
    testshop = start_testshop(database)
    with running(testshop):
        measures = {
            (method, clients): partial(wrk_with_cpu, testshop, "/api/products/", clients, options.seconds, script)
            for method, script in [("POST", "create.lua"), ("PATCH", "patch.lua")]
            for clients in (1, 16)
        }
        named = {f"{method}_{clients}": measure for (method, clients), measure in measures.items()}
        results = interleave(min(options.rounds, 3), named)
    psql(database, "delete from products where name like 'Load %'")
    for method, clients in measures:
        samples = results[f"{method}_{clients}"]
        title = f"{method}, {clients} client{'s' if clients > 1 else ''}"
        yield row(f"mutations.rate.{method}_{clients}", title, "req/s", column(samples, "rate"))
        yield row(f"mutations.p99.{method}_{clients}", "  p99", "ms", column(samples, "p99"))
