"""Time from process start to readiness, idle memory, and binary size."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from options import Options
from rows import Row, row
from servers import TESTSHOP, TestShop, catalogue, environment, running


def run(options: Options) -> Iterator[Row]:
    database, times, idle = catalogue(100), [], []
    for _ in range(options.rounds):
        testshop = TestShop("TestShop", [TESTSHOP, "serve"], environment(database))
        with running(testshop):
            while json.loads(testshop.request("GET", "/readyz")[1]).get("database") != "ok":
                pass
            times.append(time.monotonic() - testshop.started)
            idle.append(testshop.memory())
    yield row("start.ready", "time to readiness", "s", times)
    yield row("start.memory", "idle memory", "MiB", idle)
    yield row("start.binary", "size of the binary", "MB", [TESTSHOP.stat().st_size / 1e6])
