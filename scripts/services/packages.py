"""Installation of missing programs, from Debian's packages or from PyPI."""

import os
import shutil
import sys
from pathlib import Path

from .output import log
from .paths import CHECKOUT, tools_dir
from .processes import exclusive_lock, run_captured


class InstallError(Exception):
    """PyPI packages could not be installed; the message contains the reason."""


def install_debian_package(package: str) -> None:
    """Installs a Debian package; does nothing without root or apt-get, and logs a failure."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    log(f"installing the Debian package {package}")
    # prevents the package from starting its own service: this checkout starts private instances
    policy = Path("/usr/sbin/policy-rc.d")
    is_policy_ours = not policy.exists()
    if is_policy_ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        run_captured(["apt-get", "update", "-qq"], env=environment)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        done = run_captured(install, env=environment)
        if done.returncode:
            log(f"apt-get could not install {package}: {done.stderr.strip()[-300:]}")
    finally:
        if is_policy_ours:
            policy.unlink(missing_ok=True)


def pinned_packages(group: str) -> list[str]:
    """Returns the requirements of a dependency group in pyproject.toml."""
    # needs Python 3.11, which only installations from PyPI require
    import tomllib

    with open(CHECKOUT / "pyproject.toml", "rb") as file:
        requirements: list[str] = tomllib.load(file)["dependency-groups"][group]
    return requirements


def install_tools(group: str) -> Path:
    """Installs a dependency group of pyproject.toml into a virtual environment, and returns its `bin` directory.

    An environment with the same pins is reused. A lock excludes concurrent installations. Raises `InstallError`.
    """
    environment = tools_dir() / group
    requirements = pinned_packages(group)
    pins, marker = "\n".join(requirements), environment / "pins"
    with exclusive_lock(tools_dir() / f"{group}.lock"):
        if not marker.exists() or marker.read_text() != pins:
            log(f"installing {', '.join(requirements)} from PyPI into {environment}")
            create_environment(environment, requirements)
            marker.write_text(pins)
    return environment / "bin"


def create_environment(environment: Path, requirements: list[str]) -> None:
    # Debian ships ensurepip in a separate package, so this Python's own pip is preferred
    has_pip = run_captured([sys.executable, "-m", "pip", "--version"]).returncode == 0
    without_pip = ["--without-pip"] if has_pip else []
    done = run_captured([sys.executable, "-m", "venv", "--clear", *without_pip, environment])
    if done.returncode:
        raise InstallError(f"python3 -m venv failed: {(done.stdout + done.stderr).strip()[-300:]}")
    python = environment / "bin/python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python] if has_pip else [python, "-m", "pip"]
    done = run_captured([*pip, "install", "-q", "--disable-pip-version-check", *requirements])
    if done.returncode:
        last_line = done.stderr.strip().rpartition("\n")[2]
        raise InstallError(f"pip could not install {', '.join(requirements)}: {last_line}")
    # the servers' user reads it too
    run_captured(["chmod", "-R", "a+rX", environment])
