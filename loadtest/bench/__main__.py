#!/usr/bin/env python3
"""Measures TestShop on this machine beside its peers and a bare hyper server (the baseline), in interleaved rounds.

    python3 loadtest/bench [--quick] [--only CASE,...] [--rounds N] [--seconds S] [--save]

Starts its own PostgreSQL and Redis, builds the programs under test, and prints medians with their spread. With --save
the raw values of each case go to loadtest/results/CASE.json, the input of `make report`. All load goes to 127.0.0.1.
Needs wrk, and psql with pgbench. --quick runs fewer rounds of the short cases (a few minutes) and no peers.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import machine  # noqa: E402
from options import Options  # noqa: E402
from rows import Row, Skipped, format_number  # noqa: E402
from servers import ROOT  # noqa: E402
from services import install_debian_package  # noqa: E402

RESULTS = ROOT / "loadtest/results"
# in the order in which they run
CASES = [
    "list",
    "writes",
    "changes",
    "peers",
    "cold",
    "reads",
    "mutations",
    "export",
    "imports",
    "accounts",
    "latency",
    "distance",
    "fleet",
    "lease_writes",
    "connections",
    "ablations",
    "start",
    "containers",
]
QUICK = ["list", "writes", "changes", "cold", "reads", "start"]


def print_row(row: Row) -> None:
    values = row["values"]
    spread = f"{format_number(min(values))} .. {format_number(max(values))}"
    print(
        f"  {row['title']:<76} {format_number(statistics.median(values)):>10} {row['unit']:<8} [{spread}]", flush=True
    )


def prepare(options: Options, cases: Sequence[str]) -> None:
    """Installs and builds the programs under test; removes peers that cannot be built here from the options."""
    if not shutil.which("wrk"):
        install_debian_package("wrk")
    if not shutil.which("wrk"):
        sys.exit("bench: wrk is missing (Debian: apt-get install wrk)")
    print("building", flush=True)
    build = ["cargo", "build", "--release", "--locked", "--quiet", "--bins", "--examples"]
    subprocess.run(build, cwd=ROOT, check=True)
    if not {"peers", "writes"} & set(cases):
        return
    for name in list(options.peers):
        if subprocess.run([ROOT / "loadtest/peers" / name / "run", "--prepare"]).returncode:
            print(f"peer {name} skipped: its build failed", flush=True)
            options.peers.remove(name)


def run_case(case: ModuleType, options: Options) -> list[Row]:
    rows = []
    for row in case.run(options):
        rows.append(row)
        print_row(row)
    return rows


def save(name: str, result: dict[str, object]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def command_of(name: str, arguments: argparse.Namespace) -> str:
    """The command that measures this case alone, with the same options."""
    parts = ["python3 loadtest/bench --only", name]
    if arguments.quick:
        parts.append("--quick")
    for option in ("rounds", "seconds"):
        if value := getattr(arguments, option):
            parts += [f"--{option}", str(value)]
    return " ".join(parts)


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", help="comma-separated: " + ", ".join(CASES))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    cases = arguments.only.split(",") if arguments.only else QUICK if arguments.quick else CASES
    if unknown := [name for name in cases if name not in CASES]:
        parser.error(f"unknown: {', '.join(unknown)}")
    return arguments, cases


def main() -> int:
    arguments, cases = parse_arguments()
    if not os.environ.get("SERVICES_INSTANCE"):
        services = [sys.executable, str(ROOT / "scripts/services"), "run", "bench", "--"]
        return subprocess.run([*services, sys.executable, str(HERE), *sys.argv[1:]]).returncode
    options = Options(arguments)
    prepare(options, cases)
    started, noisy = time.monotonic(), []
    for name in cases:
        case = importlib.import_module(f"cases.{name}")
        description = (case.__doc__ or "").strip()
        steal, case_started = machine.Steal(), time.monotonic()
        print(f"{name}: {description.splitlines()[0]}", flush=True)
        try:
            rows = run_case(case, options)
        except Skipped as reason:
            print(f"  skipped: {reason}")
            continue
        share = steal.share()
        noise = machine.noise(rows, share)
        if noise:
            noisy.append(name)
            print(f"  too noisy to judge: {noise}")
        if arguments.save:
            result = {
                "case": name,
                "description": description,
                "command": command_of(name, arguments),
                "when": time.strftime("%Y-%m-%d"),
                "seconds": round(time.monotonic() - case_started),
                "machine": machine.describe(),
                "steal": round(share, 4),
                "noise": noise,
                "rows": rows,
            }
            save(name, result)
    summary = f"finished in {(time.monotonic() - started) / 60:.0f} min"
    print(summary + (f"; too noisy to judge: {', '.join(noisy)}" if noisy else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
