#!/usr/bin/env python3
"""Simulates fleets of 1 to 1,000 instances on one PostgreSQL, from the costs that the bench has measured.

    python3 loadtest/scale

Writes loadtest/results/scale.json, from which `make report` generates the table and the plots of docs/SCALE.md. The
costs come from loadtest/results (cases `fleet` and `changes`). Running it twice changes nothing.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "bench"))
from model import Costs, Setup, Simulation  # noqa: E402

from rows import Row, row  # noqa: E402

RESULTS = HERE.parent / "results"
INSTANCES = (1, 3, 10, 30, 100, 300, 1000)
# ms
LEASES = (0, 25, 100, 1000)
# per second, with the simulated time: long enough for some writes, and bounded for 1,000 instances without leases
WRITES = {1: 10, 10: 4, 100: 2}


def measured(case: str) -> dict[tuple[str, int | None], float]:
    rows: list[dict[str, Any]] = json.loads((RESULTS / f"{case}.json").read_text())["rows"]
    return {(row["key"], row.get("x")): statistics.median(row["values"]) for row in rows}


def measured_costs() -> Costs:
    fleet, changes = measured("fleet"), measured("changes")

    def per_statement(leases: str) -> float:
        return fleet[f"fleet.cpu.{leases}.16", 3] / fleet[f"fleet.statements.{leases}.16", 3]

    return Costs(
        version_read=per_statement("off"),
        leased_read=per_statement("on"),
        write=changes["changes.cpu.change", 10_000] / 1000,
        fill=changes["changes.cpu.list", 10_000] / 1000,
    )


def simulate(costs: Costs) -> Iterator[Row]:
    for name, seconds in costs._asdict().items():
        yield row(f"scale.cost.{name}", f"CPU of PostgreSQL: {name.replace('_', ' ')}", "ms", [seconds * 1000])
    for writes, duration in WRITES.items():
        for lease in LEASES:
            for instances in INSTANCES:
                outcome = Simulation(Setup(instances, lease / 1000, writes), costs, duration).run()
                key, title = f"{lease}.{writes}", f"{instances} instances, lease {lease} ms, {writes} writes/s"
                yield row(f"scale.load.{key}", f"{title}, load of PostgreSQL", "", [outcome.load], x=instances)
                yield row(f"scale.reads.{key}", "  version reads", "/s", [outcome.reads], x=instances)
                yield row(f"scale.leased.{key}", "  share of time under a lease", "", [outcome.leased], x=instances)
                yield row(f"scale.hit.{key}", "  a hit waits", "ms", [outcome.hit_wait * 1000], x=instances)
                yield row(f"scale.write.{key}", "  a write, median", "ms", [outcome.write_median * 1000], x=instances)
                yield row(f"scale.write_p99.{key}", "  p99", "ms", [outcome.write_p99 * 1000], x=instances)


def main() -> None:
    result = {
        "case": "scale",
        "description": (__doc__ or "").splitlines()[0],
        "when": time.strftime("%Y-%m-%d"),
        "recorded": "by the simulation `python3 loadtest/scale`",
        "noise": "",
        "rows": list(simulate(measured_costs())),
    }
    (RESULTS / "scale.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
