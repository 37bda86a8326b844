#!/usr/bin/env python3
"""Runs the long tests: injected failures, kills, overload, hostile clients, generated inputs. Prints their results.

Each step is a set of tests in tests/it/stress, whose short forms `make test` always runs, or a script. Every step has a
private PostgreSQL, Redis and server. STRESS_SECONDS shortens the steps that run for a fixed time. Exits with 1 when a
property is violated.
"""

import argparse
import concurrent.futures
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from services import find_or_install_pgbouncer, install_debian_package

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "target/stress"
# The features that plant a fault, by the step that must detect it.
MUTANTS = {"naive": "naive-fill", "feed": "forgetful-feed", "pruned": "trust-pruned-log"}
SAMPLES, RESULTS = BUILD / "samples.json", ROOT / "loadtest/results/stress.json"

Row = dict[str, Any]
# the names of tests, or a script with its arguments
Step = list[str] | tuple[str, ...]

# The first step runs beside all others of its table, which run one after the other.
CORRECTNESS: dict[str, Step] = {
    "freshness": ["stress::coherence::freshness_stress"],
    "kills": ["stress::kills::acknowledged_writes_survive_500_kills"],
    "quick": [
        "stress::smuggling::request_smuggling_is_rejected",
        "stress::rate_limits::rate_limits_hold_across_instances_and_addresses",
        "stress::fuzz_corpus::mutated_fuzz_corpus_causes_no_5xx_or_hang",
        "stress::import_bombs::large_import_bombs_stay_within_memory_and_time",
        "list::decoders::decoders_of_other_programs_inflate_the_list",
        "list::history::mutants::history_finds_forgotten_cascades",
        "list::history::mutants::history_finds_renames_logged_as_products",
        "list::history::mutants::history_finds_tokens_that_expire_early",
        "model::catalogue_matches_model",
        "shutdown::graceful_shutdown_finishes_in_flight_requests",
        "tokens::forged_and_malformed_tokens_are_rejected",
    ],
    "leases": [
        "lease_model::protocol_has_no_stale_hit_in_full_model",
        "stress::coherence::mutants::checker_detects_wrong_variants_of_leases",
        "stress::coherence::leases::freshness_with_leases_stress",
    ],
    "rolling": [
        "stress::rolling::one_network_holds_half_of_the_balancer",
        "stress::rolling::hundred_restarts_lose_no_request",
    ],
    "fuzz": ("fuzz.py", "--seconds", "20"),
    "sqlmap": ("sqlmap_test.py",),
    "api": ("api_test.py", "--examples", "100"),
    "roundtrip": ("roundtrip_test.py",),
}
# Steps that measure times: they run one after the other, with nothing beside them.
TIMED: dict[str, Step] = {
    "naive": [
        "stress::coherence::checker_detects_naive_fill_mutant",
        "list::history::mutants::history_finds_chunk_of_another_snapshot",
    ],
    "feed": [
        "changes::follower::follower_detects_a_feed_without_deletions",
        "list::history::mutants::history_finds_feed_without_deletions",
    ],
    "pruned": ["list::history::mutants::history_finds_trust_in_pruned_log"],
    "login-flood": ["stress::login_flood::login_flood_stress"],
    "bulk-accounts": ["stress::bulk_accounts::million_accounts_are_revoked_in_linear_time"],
    "enumeration": ["stress::enumeration::login_timing_is_uniform"],
    "hostile": [
        "stress::hostile::hostile_connections_stress",
        "stress::hostile::slow_list_readers_use_bounded_memory",
        "stress::hostile::unfinished_heads_use_bounded_memory",
        "stress::hostile::unread_pipelines_use_bounded_memory",
    ],
    "memory": ["stress::memory::shipped_memory_limit_holds_under_attack"],
}
# Steps that run only when they are named.
ON_REQUEST: dict[str, Step] = {
    "fuzz-long": ("fuzz.py", "--seconds", "600", "--jobs", "8"),
    "api-long": ("api_test.py", "--examples", "800"),
}
STEPS = {**CORRECTNESS, **TIMED, **ON_REQUEST}
# Debian packages that steps need, by the name of the program.
PACKAGES = {"hostile": "slowhttptest", "rolling": "haproxy"}


def cargo(*arguments: str, **options: Any) -> str:
    command = ["cargo", *arguments, "--locked", "--quiet", "--profile", "stress"]
    done = subprocess.run(command, cwd=ROOT, check=True, text=True, **options)
    return done.stdout or ""


def build(steps: list[str]) -> str:
    """Builds what the steps need and returns the path of the test binary."""
    for name in steps:
        if feature := MUTANTS.get(name):
            cargo("build", "--bin", "testshop", "--features", feature)
            shutil.copy2(BUILD / "testshop", mutant_program(name))
    messages = cargo("test", "--test", "it", "--no-run", "--message-format=json", stdout=subprocess.PIPE)
    artifacts = [json.loads(line) for line in messages.splitlines()]
    if "fuzz" in steps or "fuzz-long" in steps:
        subprocess.run([sys.executable, HERE / "fuzz.py", "--only", ""], check=True)
    path: str = next(line["executable"] for line in artifacts if is_test_binary(line))
    if unlisted := long_tests(path) - {test for step in STEPS.values() if isinstance(step, list) for test in step}:
        sys.exit(f"stress: no step runs {', '.join(sorted(unlisted))}")
    return path


def mutant_program(step: str) -> Path:
    return BUILD / f"testshop-{MUTANTS[step]}"


def long_tests(test_binary: str) -> set[str]:
    """Returns the names of the tests that `make test` does not run."""
    done = subprocess.run([test_binary, "--list", "--ignored"], check=True, capture_output=True, text=True)
    return set(re.findall(r"^(\S+): test$", done.stdout, re.M))


def is_test_binary(message: dict[str, Any]) -> bool:
    return bool(message.get("executable")) and message["target"]["name"] == "it"


def step_command(name: str, test_binary: str) -> list[str]:
    step = STEPS[name]
    if isinstance(step, tuple):
        return [sys.executable, str(HERE / step[0]), *step[1:]]
    options = ["--include-ignored", "--nocapture", "--test-threads", "1", "--exact"]
    run = [sys.executable, str(HERE / "services"), "run", f"stress-{name}", "--"]
    return [*run, test_binary, *options, *step]


def run_step(name: str, test_binary: str) -> list[Row]:
    """Runs a step, prints its rows of the table and returns them."""
    program = mutant_program(name) if name in MUTANTS else BUILD / "testshop"
    settings = {"RUST_BACKTRACE": "0", "STRESS_SAMPLES": str(SAMPLES), "TESTSHOP_PROGRAM": str(program)}
    began = time.monotonic()
    done = subprocess.run(
        step_command(name, test_binary),
        cwd=ROOT,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    seconds = round(time.monotonic() - began)
    (BUILD / f"{name}.log").write_text(done.stdout + done.stderr)
    duration = f"STRESS_SECONDS={os.environ['STRESS_SECONDS']} " if "STRESS_SECONDS" in os.environ else ""
    origin = {"step": name, "seconds": seconds, "command": f"{duration}scripts/stress.py --only {name}"}
    rows: list[Row] = [
        {"property": subject, "observed": observed, "result": "held", **origin}
        for subject, observed in re.findall(r"^RESULT \| (.*) \| (.*)$", done.stdout, re.M)
    ]
    if done.returncode or not rows or not all_tests_ran(name, done.stdout):
        end_of_output = re.sub(r"\s+", " ", (done.stdout + done.stderr)[-600:])
        rows.append({"property": f"the step {name}", "observed": end_of_output, "result": "VIOLATED", **origin})
    for row in rows:
        print(f"{row['result']:<8} {row['property']} ({seconds} s)\n         {row['observed']}", flush=True)
    return rows


def all_tests_ran(name: str, output: str) -> bool:
    """Returns whether every test of a step ran; the test runner ignores names of tests that do not exist."""
    step = STEPS[name]
    if isinstance(step, tuple):
        return True
    passed = re.search(r"^test result: ok\. (\d+) passed", output, re.M)
    return passed is not None and int(passed.group(1)) == len(step)


def save(rows: list[Row], steps: list[str]) -> None:
    """Replaces the rows of these steps in stress.json."""
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": [], "samples": []}
    others = [row for row in before["rows"] if row["step"] not in steps]
    origin = {"when": time.strftime("%Y-%m-%d"), "machine": f"{os.cpu_count()} cores, Linux {platform.release()}"}
    order = list(STEPS)
    result = {
        "rows": sorted(others + [{**row, **origin} for row in rows], key=lambda row: order.index(row["step"])),
        "samples": json.loads(SAMPLES.read_text()) if "freshness" in steps and SAMPLES.exists() else before["samples"],
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


def run_steps(steps: list[str], test_binary: str) -> list[Row]:
    rows: list[Row] = []
    first, *others = CORRECTNESS
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        beside = [pool.submit(run_step, first, test_binary)] if first in steps else []
        for name in [*others, *TIMED, *ON_REQUEST]:
            if name not in CORRECTNESS:
                concurrent.futures.wait(beside)
            if name in steps:
                rows += run_step(name, test_binary)
        rows += [row for future in beside for row in future.result()]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ",".join([*CORRECTNESS, *TIMED])
    parser.add_argument("--only", metavar="STEP,...", default=default, help=f"steps to run: {', '.join(STEPS)}")
    parser.add_argument("--save", action="store_true", help="write the table to loadtest/results/stress.json")
    arguments = parser.parse_args()
    steps = arguments.only.split(",")
    if unknown := [name for name in steps if name not in STEPS]:
        parser.error(f"unknown steps: {', '.join(unknown)}")
    for step, program in PACKAGES.items():
        if step in steps and not shutil.which(program):
            install_debian_package(program)
    if "leases" in steps:
        find_or_install_pgbouncer()
    test_binary = build(steps)
    began = time.monotonic()
    rows = run_steps(steps, test_binary)
    violated = [row for row in rows if row["result"] != "held"]
    print(f"{len(rows)} properties, {len(violated)} violated, {(time.monotonic() - began) / 60:.0f} min")
    if arguments.save:
        save(rows, steps)
    return 1 if violated else 0


if __name__ == "__main__":
    sys.exit(main())
