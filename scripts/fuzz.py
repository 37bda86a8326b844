#!/usr/bin/env python3
"""Lets cargo-fuzz make up inputs, led by what they reach in the code; none may make a fault or a hang.

    fuzz.py [--seconds N] [--only PLACE,...] [--jobs N] [--keep]

The places stand in fuzz/targets, with what to begin with in fuzz/corpus; --keep adds some of what reached more. Brings its own PostgreSQL
and Redis, one set a place, and cargo-fuzz. An input that breaks a promise is left in target/fuzz/broken/PLACE. Without a sanitizer:
the shop has no unsafe code; overflows and failed assertions end a run as a panic does.
"""
import argparse, concurrent.futures, os, re, shutil, subprocess, sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TARGET = ROOT / "target/fuzz"
CORPUS = ROOT / "fuzz/corpus"
PLACES = sorted(path.stem for path in (ROOT / "fuzz/targets").glob("*.rs"))
INPUT_BYTES = 4096
# inputs that --keep adds a place, at most
KEPT = 100


def build():
    if not shutil.which("cargo-fuzz"):
        subprocess.run(["cargo", "install", "cargo-fuzz", "--locked"], check=True)
    subprocess.run(["cargo", "fuzz", "build", "--fuzz-dir", ".", "-s", "none", "--target-dir", TARGET], cwd=ROOT / "fuzz", check=True)
    return next(TARGET.glob("*/release/head")).parent


def fuzz(place, seconds, keep, binaries):
    """Inputs tried, and whether a promise was broken."""
    found, broken = TARGET / "found" / place, TARGET / "broken" / place
    for folder in (found, broken):
        folder.mkdir(parents=True, exist_ok=True)
    bounds = [f"-max_total_time={seconds}", "-timeout=60", "-rss_limit_mb=4096", f"-max_len={INPUT_BYTES}", f"-artifact_prefix={broken}/"]
    within = [sys.executable, HERE / "services.py", "run", f"fuzz-{place.replace('_', '-')}", "--", binaries / place]
    run = [str(part) for part in [*within, *bounds, "-print_final_stats=1", found, CORPUS / place]]
    done = subprocess.run(run, capture_output=True, text=True, errors="replace")
    (TARGET / f"{place}.log").write_text(done.stdout + done.stderr)
    tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    if done.returncode:
        print(f"BROKEN {place}: see {TARGET / place}.log\n{done.stderr[-2000:]}", flush=True)
    elif keep:
        kept = TARGET / "kept" / place
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        merge = [*within, "-set_cover_merge=1", f"-max_len={INPUT_BYTES}", kept, CORPUS / place, found]
        subprocess.run([str(part) for part in merge], check=True, capture_output=True)
        # of all sizes
        inputs = sorted(kept.iterdir(), key=lambda path: (path.stat().st_size, path.name))
        for path in inputs[::-(-len(inputs) // KEPT) or 1]:
            shutil.copy(path, CORPUS / place)
    count = int(tried.group(1)) if tried else 0
    print(f"{place}: {count:,} inputs", flush=True)
    return count, bool(done.returncode) or not count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each place (60)")
    parser.add_argument("--only", default=",".join(PLACES), help="comma-separated, none: build only: " + ", ".join(PLACES))
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="places at a time (as many as processors)")
    parser.add_argument("--keep", action="store_true", help="add what was found to fuzz/corpus")
    arguments = parser.parse_args()
    places = arguments.only.split(",") if arguments.only else []
    if unknown := [place for place in places if place not in PLACES]:
        parser.error(f"unknown: {', '.join(unknown)}")
    binaries = build()
    if not places:
        return 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        results = dict(zip(places, pool.map(lambda place: fuzz(place, arguments.seconds, arguments.keep, binaries), places)))
    if any(broken for _, broken in results.values()):
        return 1
    counts = ", ".join(f"{place} {count:,}" for place, (count, _) in results.items())
    # for the table of hard.py
    print(f"SEEN | no input that cargo-fuzz makes up makes a fault or a hang | {arguments.seconds} s a place: {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
