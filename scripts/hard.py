#!/usr/bin/env python3
"""Runs what takes long: faults, kills, storms, hostile clients. Prints a table of promise, number and verdict.

    hard.py [--only STEP,...] [--save]

The promises stand in tests/it/hard, each beside a fast test that `make test` always runs. Brings its own PostgreSQL, Redis and
servers, one set a step; --save puts the table into loadtest/results/hard.json, from which `make report` takes it.
HARD_SECONDS shortens what has a duration. Exits with 1 when a promise does not hold.
"""
import argparse, concurrent.futures, json, os, platform, re, shutil, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))
from services import from_debian  # noqa: E402

NAIVE = ROOT / "target/hard/testshop-naive"
SAMPLES, RESULT = ROOT / "target/hard/samples.json", ROOT / "loadtest/results/hard.json"

# at the same time
CORRECTNESS = {
    "freshness": "freshness_at_length",
    "kills": "five_hundred_kills_lose_nothing_that_was_acknowledged",
}
# one after the other, and nothing beside them: they take times
TIMES = {
    "naive": "the_checker_finds_a_naive_fill",
    "storm": "a_storm_of_logins_at_length",
    "enumeration": "an_account_is_told_by_no_time_at_length",
    "hostile": "hostile_clients_at_length",
    "rolling": "a_hundred_restarts_lose_no_request",
}


def build(steps):
    """The tests' program."""
    cargo = lambda *arguments, **more: subprocess.run(["cargo", *arguments, "--locked", "--quiet", "--profile", "hard"], cwd=ROOT, check=True, **more)
    if "naive" in steps:
        cargo("build", "--bin", "testshop", "--features", "naive-fill")
        shutil.copy2(ROOT / "target/hard/testshop", NAIVE)
    told = cargo("test", "--test", "it", "--no-run", "--message-format=json", stdout=subprocess.PIPE, text=True).stdout
    made = [json.loads(line) for line in told.splitlines()]
    return next(line["executable"] for line in made if line.get("executable") and line["target"]["name"] == "it")


def step(name, test, tests):
    """Lines of the table."""
    began = time.monotonic()
    environment = {**os.environ, "RUST_BACKTRACE": "0", "HARD_SAMPLES": str(SAMPLES), **({"TESTSHOP_PROGRAM": str(NAIVE)} if name == "naive" else {})}
    run = [sys.executable, HERE / "services.py", "run", f"hard-{name}", "--", tests, "--ignored", "--nocapture", "--test-threads", "1", test]
    done = subprocess.run([str(part) for part in run], cwd=ROOT, env=environment, capture_output=True, text=True)
    seconds = round(time.monotonic() - began)
    rows = [{"promise": promise, "numbers": numbers, "verdict": "held", "step": name, "seconds": seconds}
            for promise, numbers in re.findall(r"^SEEN \| (.*) \| (.*)$", done.stdout, re.M)]
    if done.returncode or not rows:
        words = re.sub(r"\s+", " ", (done.stdout + done.stderr)[-600:])
        rows.append({"promise": test.replace("_", " "), "numbers": words, "verdict": "BROKEN", "step": name, "seconds": seconds})
        (ROOT / f"target/hard/{name}.log").write_text(done.stdout + done.stderr)
    for row in rows:
        print(f"{row['verdict']:<6} {row['promise']}\n       {row['numbers']}", flush=True)
    return rows


def save(rows, steps):
    """In the place of what these steps said before."""
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {"rows": [], "samples": []}
    kept = [row for row in before["rows"] if row["step"] not in steps]
    today = {"when": time.strftime("%Y-%m-%d"), "machine": f"{os.cpu_count()} cores, Linux {platform.release()}"}
    order = [*CORRECTNESS, *TIMES]
    result = {
        "rows": sorted(kept + [{**row, **today} for row in rows], key=lambda row: order.index(row["step"])),
        "samples": json.loads(SAMPLES.read_text()) if "freshness" in steps and SAMPLES.exists() else before["samples"],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*CORRECTNESS, *TIMES]
    parser.add_argument("--only", help="comma-separated: " + ", ".join(names))
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    steps = arguments.only.split(",") if arguments.only else names
    if unknown := [name for name in steps if name not in names]:
        parser.error(f"unknown: {', '.join(unknown)}")
    for program, wanted in [("slowhttptest", "hostile"), ("haproxy", "rolling")]:
        if wanted in steps and not shutil.which(program):
            from_debian(program)
    tests = build(steps)
    began, rows = time.monotonic(), []
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = [pool.submit(step, name, CORRECTNESS[name], tests) for name in steps if name in CORRECTNESS]
        rows += [row for each in running for row in each.result()]
    for name in steps:
        if name in TIMES:
            rows += step(name, TIMES[name], tests)
    broken = [row for row in rows if row["verdict"] != "held"]
    print(f"{len(rows)} promises, {len(broken)} broken, {(time.monotonic() - began) / 60:.0f} min")
    if arguments.save:
        save(rows, steps)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
