#!/usr/bin/env python3
"""Runs what takes long: faults, kills, storms, hostile clients, made-up inputs. Prints a table of promise, number and verdict.

    hard.py [--only STEP,...] [--save]

The promises stand in tests/it/hard, each beside a fast test that `make test` always runs; some are scripts of their own. Brings its
own PostgreSQL, Redis and servers, one set a step; --save puts the table into loadtest/results/hard.json, from which `make report`
takes it. HARD_SECONDS shortens what has a duration. Exits with 1 when a promise does not hold.
"""
import argparse, concurrent.futures, json, os, platform, re, shutil, subprocess, sys, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))
from services import from_debian  # noqa: E402

BUILT = ROOT / "target/hard"
NAIVE = BUILT / "testshop-naive"
SAMPLES, RESULT = BUILT / "samples.json", ROOT / "loadtest/results/hard.json"

# by name: tests, or a script with its arguments. The first goes beside all the others of its table, which follow each other
CORRECTNESS = {
    "freshness": ["hard::coherence::freshness_at_length"],
    "kills": ["hard::kills::five_hundred_kills_lose_nothing_that_was_acknowledged"],
    "quick": [
        "hard::smuggling::no_shape_of_a_request_smuggles_another",
        "hard::throttles::throttles_hold_whoever_comes_from_wherever",
        "hard::inputs::no_input_makes_a_fault_or_a_hang",
        "model::the_catalogue_is_what_a_model_of_it_says",
        "stops::what_runs_at_sigterm_is_finished_and_idle_connections_are_let_go",
        "tokens::forged_and_strange_tokens_are_refused",
    ],
    "rolling": ["hard::rolling::a_hundred_restarts_lose_no_request"],
    "fuzz": ("fuzz.py", "--seconds", "20"),
    "injection": ("injection.py",),
    "api": ("api_test.py", "--examples", "100"),
}
# by name only: what takes longer than half an hour beside the others
LONGER = {
    "fuzz-long": ("fuzz.py", "--seconds", "600", "--jobs", "8"),
    "api-long": ("api_test.py", "--examples", "800"),
}
# one after the other, and nothing beside them: they take times
TIMES = {
    "naive": ["hard::coherence::the_checker_finds_a_naive_fill"],
    "storm": ["hard::storm::a_storm_of_logins_at_length"],
    "enumeration": ["hard::enumeration::an_account_is_told_by_no_time_at_length"],
    "hostile": ["hard::hostile::hostile_clients_at_length", "hard::hostile::lists_that_many_read_slowly_take_no_memory_without_bound"],
}
STEPS = {**CORRECTNESS, **TIMES, **LONGER}


def build(steps):
    """The tests' program."""
    cargo = lambda *arguments, **more: subprocess.run(["cargo", *arguments, "--locked", "--quiet", "--profile", "hard"], cwd=ROOT, check=True, **more)
    if "naive" in steps:
        cargo("build", "--bin", "testshop", "--features", "naive-fill")
        shutil.copy2(BUILT / "testshop", NAIVE)
    told = cargo("test", "--test", "it", "--no-run", "--message-format=json", stdout=subprocess.PIPE, text=True).stdout
    made = [json.loads(line) for line in told.splitlines()]
    if "fuzz" in steps or "fuzz-long" in steps:
        subprocess.run([sys.executable, HERE / "fuzz.py", "--seconds", "1", "--only", ""], check=True)
    return next(line["executable"] for line in made if line.get("executable") and line["target"]["name"] == "it")


def step(name, tests):
    """Lines of the table."""
    began, what = time.monotonic(), STEPS[name]
    program = NAIVE if name == "naive" else BUILT / "testshop"
    environment = {**os.environ, "RUST_BACKTRACE": "0", "HARD_SAMPLES": str(SAMPLES), "TESTSHOP_PROGRAM": str(program)}
    if isinstance(what, tuple):
        run = [sys.executable, HERE / what[0], *what[1:]]
    else:
        run = [sys.executable, HERE / "services.py", "run", f"hard-{name}", "--", tests, "--include-ignored", "--nocapture",
               "--test-threads", "1", "--exact", *what]
    done = subprocess.run([str(part) for part in run], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    shortened = "HARD_SECONDS={} ".format(os.environ["HARD_SECONDS"]) if "HARD_SECONDS" in os.environ else ""
    seen = {"step": name, "seconds": round(time.monotonic() - began), "command": f"{shortened}scripts/hard.py --only {name}"}
    rows = [{"promise": promise, "numbers": numbers, "verdict": "held", **seen}
            for promise, numbers in re.findall(r"^SEEN \| (.*) \| (.*)$", done.stdout, re.M)]
    (BUILT / f"{name}.log").write_text(done.stdout + done.stderr)
    # a test that has another name now would not be missed otherwise
    ran = re.search(r"^test result: ok\. (\d+) passed", done.stdout, re.M)
    all_ran = isinstance(what, tuple) or (ran and int(ran.group(1)) == len(what))
    if done.returncode or not rows or not all_ran:
        words = re.sub(r"\s+", " ", (done.stdout + done.stderr)[-600:])
        rows.append({"promise": f"the step {name}", "numbers": words, "verdict": "BROKEN", **seen})
    for row in rows:
        print(f"{row['verdict']:<6} {row['promise']} ({row['seconds']} s)\n       {row['numbers']}", flush=True)
    return rows


def save(rows, steps):
    """In the place of what these steps said before."""
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {"rows": [], "samples": []}
    kept = [row for row in before["rows"] if row["step"] not in steps]
    today = {"when": time.strftime("%Y-%m-%d"), "machine": f"{os.cpu_count()} cores, Linux {platform.release()}"}
    order = list(STEPS)
    result = {
        "rows": sorted(kept + [{**row, **today} for row in rows], key=lambda row: order.index(row["step"])),
        "samples": json.loads(SAMPLES.read_text()) if "freshness" in steps and SAMPLES.exists() else before["samples"],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join([*CORRECTNESS, *TIMES]), help="comma-separated: " + ", ".join(STEPS))
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    steps = arguments.only.split(",")
    if unknown := [name for name in steps if name not in STEPS]:
        parser.error(f"unknown: {', '.join(unknown)}")
    for program, wanted in [("slowhttptest", "hostile"), ("haproxy", "rolling")]:
        if wanted in steps and not shutil.which(program):
            from_debian(program)
    tests = build(steps)
    began, rows = time.monotonic(), []
    first, *others = CORRECTNESS
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        beside = [pool.submit(step, first, tests)] if first in steps else []
        for name in [*others, *TIMES, *LONGER]:
            if name in TIMES or name in LONGER:
                concurrent.futures.wait(beside)
            if name in steps:
                rows += step(name, tests)
        rows += [row for each in beside for row in each.result()]
    broken = [row for row in rows if row["verdict"] != "held"]
    print(f"{len(rows)} promises, {len(broken)} broken, {(time.monotonic() - began) / 60:.0f} min")
    if arguments.save:
        save(rows, steps)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
