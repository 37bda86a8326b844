"""PgBouncer, for the tests of servers behind a pooler in transaction mode.

Prepared statements work in this mode since PgBouncer 1.21. Debian 12 has an older one: there, the packages of Debian 13
are unpacked into a private directory, together with the libraries that PgBouncer needs, and nothing is installed.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from .output import log
from .packages import install_debian_package
from .paths import tools_dir
from .processes import exclusive_lock, run_captured

OLDEST_VERSION = (1, 21)
RELEASE, KEYRING = "trixie", "/usr/share/keyrings/debian-archive-keyring.gpg"
# PgBouncer and its libraries; the dynamic loader of the same release loads them
PACKAGES = [
    "pgbouncer",
    "libaudit1",
    "libc6",
    "libcap-ng0",
    "libcap2",
    "libcares2",
    "libevent-2.1-7t64",
    "libpam0g",
    "libssl3t64",
    "libsystemd0",
    "libzstd1",
    "zlib1g",
]


def unpacked_dir() -> Path:
    return tools_dir() / "pgbouncer"


def find_pgbouncer() -> str | None:
    """Returns the path of a PgBouncer that supports prepared statements in transaction mode."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    for program in [shutil.which("pgbouncer", path=path), shutil.which(unpacked_dir() / "pgbouncer")]:
        if program and version(program) >= OLDEST_VERSION:
            return program
    return None


def version(program: str) -> tuple[int, ...]:
    found = re.search(r"PgBouncer (\d+)\.(\d+)", run_captured([program, "--version"]).stdout)
    return tuple(int(part) for part in found.groups()) if found else ()


def find_or_install_pgbouncer() -> str | None:
    """Returns the path of PgBouncer, or `None` when it is missing and cannot be installed."""
    with exclusive_lock(tools_dir() / "pgbouncer.lock"):
        found = find_pgbouncer()
        if not found and not shutil.which("pgbouncer", path="/usr/sbin"):
            install_debian_package("pgbouncer")
            found = find_pgbouncer()
        if not found and unpack_debian_packages():
            found = find_pgbouncer()
    if not found:
        log("PgBouncer 1.21 or newer is missing and cannot be installed: the tests with a pooler are SKIPPED")
    return found


def debian_mirrors() -> Iterator[str]:
    """Yields the address of each mirror of Debian's main archive that this machine uses."""
    if not shutil.which("apt-get"):
        return
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"]
    for line in sorted(set(run_captured(command).stdout.splitlines())):
        if line.startswith("Debian Debian "):
            yield line.split()[2]


def unpack_debian_packages() -> bool:
    """Unpacks PgBouncer of `RELEASE` with its libraries, and returns whether this succeeded."""
    directory = unpacked_dir()
    for mirror in debian_mirrors():
        log(f"unpacking the Debian packages of PgBouncer of {RELEASE}")
        shutil.rmtree(directory, ignore_errors=True)
        packages = directory / "packages"
        packages.mkdir(parents=True)
        environment = dict(os.environ, APT_CONFIG=str(write_apt_config(directory / "apt", mirror)))
        for command in (["apt-get", "-qq", "update"], ["apt-get", "-qq", "download", *PACKAGES]):
            done = run_captured(command, cwd=packages, env=environment)
            if done.returncode:
                log(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-300:]}")
                break
        else:
            for package in packages.glob("*.deb"):
                run_captured(["dpkg-deb", "--extract", package, directory / "root"])
            shutil.rmtree(packages)
            shutil.rmtree(directory / "apt")
            write_launcher(directory)
            return True
    return False


def write_apt_config(directory: Path, mirror: str) -> Path:
    """Writes a configuration with which apt uses `RELEASE`, and directories of its own."""
    (directory / "lists/partial").mkdir(parents=True)
    (directory / "cache/archives/partial").mkdir(parents=True)
    (directory / "status").touch()
    (directory / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {RELEASE} main\n")
    config = directory / "apt.conf"
    settings = {
        "Dir::State::lists": directory / "lists",
        "Dir::State::status": directory / "status",
        "Dir::Cache": directory / "cache",
        "Dir::Etc::sourcelist": directory / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Sandbox::User": "root",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::Languages": "none",
    }
    config.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    return config


def write_launcher(directory: Path) -> None:
    launcher, program = directory / "pgbouncer", directory / "root/usr/sbin/pgbouncer"
    loader = next((directory / "root/usr/lib").glob("*-linux-gnu/ld-linux-*.so.*"))
    launcher.write_text(f'#!/bin/sh\nexec "{loader}" --library-path "{loader.parent}" "{program}" "$@"\n')
    launcher.chmod(0o755)
    # the servers' user runs it too
    run_captured(["chmod", "-R", "a+rX", directory])
