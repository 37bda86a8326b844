#!/usr/bin/env python3
"""Checks the files under deploy/, the Dockerfile and docker-compose.yml without running them.

Kubernetes manifests are validated against the schemas of kubernetes-validate (PyPI), the unit with systemd-analyze, the
Prometheus rules with promtool, the compose files with docker-compose. A check whose tool is missing is skipped with a
message. Health probes must use the port for operators, and images must have a tag other than `latest`.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from services import CHECKOUT as ROOT
from services import InstallError, install_tools

KUBERNETES_VERSION = "1.31"
UNIT = ROOT / "deploy/systemd/testshop.service"
# the scale of systemd-analyze: 0 is fully confined, 10 is unprotected
MAX_EXPOSURE = 2.0


class Skipped(Exception):
    """A check that cannot run on this machine, with the reason."""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)


def require(tool: str) -> None:
    if not shutil.which(tool):
        raise Skipped(f"{tool} is not installed")


def kubernetes() -> str | None:
    try:
        binaries = install_tools("kubernetes")
    except InstallError as error:
        return str(error)
    files = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
    if not files:
        return "no manifests"
    done = run(binaries / "kubernetes-validate", "--strict", "--quiet", "-k", KUBERNETES_VERSION, *files)
    return done.stdout + done.stderr if done.returncode else None


def systemd() -> str | None:
    require("systemd-analyze")
    done = run("systemd-analyze", "verify", "--man=no", UNIT)
    # neither the program nor the services that the unit waits for are installed on this machine
    errors = [line for line in done.stderr.splitlines() if UNIT.name in line and "is not executable" not in line]
    if errors:
        return "\n".join(errors)
    threshold = f"--threshold={int(MAX_EXPOSURE * 10)}"
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", threshold, UNIT)
    return (done.stdout + done.stderr)[-2000:] if done.returncode else None


def prometheus() -> str | None:
    require("promtool")
    directory = ROOT / "deploy/prometheus"
    for arguments in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]):
        done = run("promtool", *arguments[:2], directory / arguments[2])
        if done.returncode:
            return done.stdout + done.stderr
    return None


def compose() -> str | None:
    tool = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    if not shutil.which(tool[0]) or run(*tool, "version").returncode:
        raise Skipped("docker-compose is not installed")
    for files in (["docker-compose.yml"], ["docker-compose.yml", "deploy/pgbouncer/docker-compose.yml"]):
        done = run(*tool, *[part for file in files for part in ("-f", file)], "config", "-q")
        if done.returncode:
            return done.stderr
    return None


def probes() -> str | None:
    """Probes do not use the port for clients, because one client can hold all of its connections."""
    expected = {
        "deploy/kubernetes/shop.yaml": (r"httpGet: \{(.*)\}", ", port: admin"),
        "deploy/haproxy/haproxy.cfg": (r"server-template (.*)", " port 9000 "),
        "docker-compose.yml": (r"test: \[CMD, /usr/local/bin/testshop, (.*)\]", "healthcheck"),
        "Dockerfile": (r'HEALTHCHECK .*CMD \["/usr/local/bin/testshop", (.*)\]', '"healthcheck"'),
    }
    errors = []
    for file, (pattern, part) in expected.items():
        found = re.findall(pattern, (ROOT / file).read_text())
        if not found or not all(part in probe for probe in found):
            errors.append(f"{file}: {found or 'no probe'}, without {part}")
    return "\n".join(errors)


def images() -> str | None:
    """Images have a tag or a digest, and not the tag `latest`, except for those that are built here."""
    files = [ROOT / "Dockerfile", ROOT / "docker-compose.yml", *(ROOT / "deploy").glob("*/*.yaml")]
    files += [*(ROOT / "deploy").glob("*/Dockerfile"), *(ROOT / "deploy").glob("*/*.yml")]
    errors = []
    for file in files:
        for name in re.findall(r"^(?:FROM|\s*image:)\s+(?:\$\{\w+:-)?([^\s}]+)", file.read_text(), re.M):
            is_fixed = re.search(r":(?!latest$)[\w.-]+$|@sha256:[0-9a-f]{64}$", name)
            if not is_fixed and not name.startswith("testshop"):
                errors.append(f"{file.relative_to(ROOT)}: {name}")
    return "\n".join(errors)


CHECKS: list[Callable[[], str | None]] = [kubernetes, systemd, prometheus, compose, probes, images]


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    failed = False
    for check in CHECKS:
        try:
            error = check()
        except Skipped as reason:
            print(f"{check.__name__}: SKIPPED, {reason}", flush=True)
            continue
        print(f"{check.__name__}: {'FAILED' if error else 'ok'}", flush=True)
        if error:
            failed = True
            print(error)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
