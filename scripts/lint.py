#!/usr/bin/env python3
"""Checks the Python files with ruff and mypy, and the GitHub workflows with actionlint.

The tools are installed from PyPI into private virtual environments, in the versions that pyproject.toml pins.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from services import CHECKOUT as ROOT
from services import InstallError, install_tools


def run(*command: str | Path) -> bool:
    """Runs a command in the root of the repository and returns whether it succeeded."""
    return subprocess.run(command, cwd=ROOT).returncode == 0


def check_python(fix: bool) -> bool:
    binaries = install_tools("lint")
    fix_option, check_option = (["--fix"], []) if fix else ([], ["--check"])
    results = [
        run(binaries / "ruff", "check", "--quiet", *fix_option),
        run(binaries / "ruff", "format", "--quiet", *check_option),
        run(binaries / "mypy"),
    ]
    return all(results)


def find_or_install_actionlint() -> str | Path:
    return shutil.which("actionlint") or install_tools("actionlint") / "actionlint"


def check_workflows() -> bool:
    workflows = sorted((ROOT / ".github/workflows").glob("*.y*ml"))
    if not workflows:
        return True
    try:
        actionlint = find_or_install_actionlint()
    except InstallError as error:
        print(f"SKIPPED: the workflows were NOT checked: {error}")
        return True
    return run(actionlint, *workflows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fix", action="store_true", help="format the Python files and apply ruff's safe fixes")
    arguments = parser.parse_args()
    try:
        passed = check_python(arguments.fix)
    except InstallError as error:
        sys.exit(f"lint: {error}")
    return 0 if check_workflows() and passed else 1


if __name__ == "__main__":
    sys.exit(main())
