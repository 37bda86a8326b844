#!/usr/bin/env python3
"""Measures the shop on this machine, side by side with its peers and with the limit of its stack, in rounds that take turns.

    python3 loadtest/bench [--quick] [--only CASE,...] [--rounds N] [--seconds S] [--save]

Brings its own PostgreSQL and Redis, builds what it measures, and prints a table of medians with their spread; with --save
each case's raw figures go to loadtest/results/CASE.json, from which `make report` makes REPORT.md. Load goes to 127.0.0.1.
Needs wrk and psql with pgbench. --quick: fewer rounds, the cases that take a few minutes together, and no peers.
"""
import argparse, importlib, json, os, shutil, statistics, subprocess, sys, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import machine  # noqa: E402
from rows import LeftOut, show  # noqa: E402
from servers import PEERS, ROOT  # noqa: E402
from services import from_debian  # noqa: E402

RESULTS = ROOT / "loadtest/results"
# in the order of the report
CASES = ["list", "writes", "peers", "cold", "reads", "changes", "export", "imports", "accounts", "latency", "connections", "layers", "start", "containers"]
QUICK = ["list", "writes", "cold", "reads", "start"]


class Bench:
    """What the cases are told: how many rounds, how long each, and whether to hurry."""

    def __init__(self, arguments):
        self.quick = arguments.quick
        self.rounds = arguments.rounds or (3 if arguments.quick else 5)
        self.seconds = arguments.seconds or (1 if arguments.quick else 2)
        self.peers = [] if arguments.quick else list(PEERS)

    def sizes(self, *sizes):
        return [size for size in sizes if not self.quick or size <= 10_000]


def print_row(line):
    values = line["values"]
    print(f"  {line['what']:<76} {show(statistics.median(values)):>10} {line['unit']:<8} [{show(min(values))} .. {show(max(values))}]", flush=True)


def prepare(bench, cases):
    """Installs and builds what is measured; a peer that cannot be had is left out, and said to be."""
    if not shutil.which("wrk"):
        from_debian("wrk")
    if not shutil.which("wrk"):
        sys.exit("bench: wrk is missing (Debian: apt-get install wrk)")
    print("building what is measured", flush=True)
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "--bins", "--examples"], cwd=ROOT, check=True)
    if not {"peers", "writes"} & set(cases):
        return
    for name in list(bench.peers):
        if subprocess.run([ROOT / "loadtest/peers" / name / "run", "--prepare"]).returncode:
            print(f"the peer {name} cannot be built here and is left out", flush=True)
            bench.peers.remove(name)


def main():
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
    if not os.environ.get("SERVICES_INSTANCE"):
        return subprocess.run([sys.executable, ROOT / "scripts/services.py", "run", "bench", "--", sys.executable, HERE, *sys.argv[1:]]).returncode
    bench = Bench(arguments)
    prepare(bench, cases)
    began, noisy = time.monotonic(), {}
    for name in cases:
        case = importlib.import_module(f"cases.{name}")
        steal, case_began = machine.Steal(), time.monotonic()
        print(f"{name}: {case.__doc__.splitlines()[0]}", flush=True)
        rows = []
        try:
            for line in case.run(bench):
                rows.append(line)
                print_row(line)
        except LeftOut as reason:
            print(f"  left out: {reason}")
            continue
        share = steal.share()
        if reason := machine.noise(rows, share):
            noisy[name] = reason
            print(f"  too noisy to judge by: {reason}")
        if arguments.save:
            RESULTS.mkdir(exist_ok=True)
            more = [part for option in ("rounds", "seconds") if (value := getattr(arguments, option)) for part in (f"--{option}", str(value))]
            command = " ".join(["python3 loadtest/bench --only", name, *(["--quick"] if bench.quick else []), *more])
            raw = {"case": name, "about": case.__doc__.strip(), "command": command, "when": time.strftime("%Y-%m-%d"), "seconds": round(time.monotonic() - case_began),
                   "machine": machine.describe(), "steal": round(share, 4), "noise": noisy.get(name, ""), "rows": rows}
            (RESULTS / f"{name}.json").write_text(json.dumps(raw, indent=1) + "\n")
    print(f"all in {(time.monotonic() - began) / 60:.0f} min" + (f"; too noisy to judge by: {', '.join(noisy)}" if noisy else ""))


if __name__ == "__main__":
    sys.exit(main())
