#!/usr/bin/env python3
"""Builds the previous release, for the tests that run it beside the present program. Prints the path of the binary.

The previous release is the newest tag v* before HEAD, or else the commit that tests/previous_release names. It is
built from `git archive` in the target directory of this checkout, so that both programs share the dependencies' builds.
Prints an empty line, with the reason on standard error, when the history of the repository does not contain it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
BINARIES = TARGET / "previous"
BASELINE = ROOT / "tests/previous_release"


def git(*arguments: str) -> str | None:
    """Returns the output of git, or None if it fails."""
    if not shutil.which("git"):
        return None
    done = subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def previous_commit() -> str | None:
    """Returns the commit of the previous release, if the history contains it."""
    tag = git("describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^")
    return git("rev-parse", "--verify", "--quiet", f"{tag or BASELINE.read_text().strip()}^{{commit}}")


def build(commit: str, binary: Path) -> None:
    """Builds the program of a commit and copies it to `binary`."""
    source = BINARIES / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    archive = subprocess.Popen(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", source], stdin=archive.stdout, check=True)
    if archive.wait():
        sys.exit(f"previous_release: git archive {commit} failed")
    # the profile of this checkout, so that the builds of dependencies are shared wherever the target directory is
    profile, target = str(ROOT / ".cargo/config.toml"), str(TARGET.resolve())
    command = [
        "cargo",
        "build",
        "--config",
        profile,
        "--locked",
        "--quiet",
        "--bin",
        "testshop",
        "--target-dir",
        target,
    ]
    subprocess.run(command, cwd=source, check=True, stdout=sys.stderr)
    # the next build of this checkout replaces the file; a copy that is interrupted must not count
    partial = binary.with_suffix(".partial")
    shutil.copy2(TARGET / "debug/testshop", partial)
    partial.rename(binary)
    shutil.rmtree(source)


def main() -> None:
    commit = previous_commit()
    if commit is None:
        print("previous_release: SKIPPED, the git history has no earlier release", file=sys.stderr)
        print()
        return
    binary = BINARIES / commit[:12]
    if not binary.exists():
        print(f"previous_release: building {commit[:12]}", file=sys.stderr, flush=True)
        build(commit, binary)
    print(binary.resolve())


if __name__ == "__main__":
    main()
