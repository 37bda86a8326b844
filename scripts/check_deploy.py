#!/usr/bin/env python3
"""Checks what stands under deploy/, and docker-compose.yml, without running any of it.

Kubernetes' manifests against the schemas of PyPI's kubernetes-validate (kept in a private venv), the unit with
systemd-analyze, Prometheus' rules with promtool, the compose files with docker-compose. Where a tool of this machine is
missing, its check is skipped, and says so.
"""
import shutil, subprocess, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import services

PYPI = "kubernetes-validate==1.37.0"
KUBERNETES = "1.31"
ROOT = services.CHECKOUT
UNIT = ROOT / "deploy/systemd/testshop.service"
# systemd-analyze's own measure: 0 is a prison, 10 is no protection
WORST_EXPOSURE = 2.0


def run(*command, **more):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=ROOT, **more)


def kubernetes():
    venv = services.home() / "venv-check"
    tool = venv / "bin/kubernetes-validate"
    if not tool.exists():
        done = run(sys.executable, "-m", "venv", venv)
        done = done if done.returncode else run(venv / "bin/pip", "install", "-q", PYPI)
        if done.returncode:
            return f"{PYPI} cannot be installed: {done.stderr.strip()[-300:]}"
    files = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
    done = run(tool, "--strict", "--quiet", "-k", KUBERNETES, *files)
    words = done.stdout + done.stderr
    return words or "no manifests" if done.returncode or not files else None


def systemd():
    if not shutil.which("systemd-analyze"):
        return skipped("systemd-analyze")
    done = run("systemd-analyze", "verify", "--man=no", UNIT)
    # the program is not installed where this is checked, and neither are the services that the unit waits for
    faults = [line for line in done.stderr.splitlines() if UNIT.name in line and "is not executable" not in line]
    if faults:
        return "\n".join(faults)
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={int(WORST_EXPOSURE * 10)}", UNIT)
    return (done.stdout + done.stderr)[-2000:] if done.returncode else None


def prometheus():
    if not shutil.which("promtool"):
        return skipped("promtool")
    folder = ROOT / "deploy/prometheus"
    for command in (["check", "config", folder / "prometheus.yml"], ["test", "rules", folder / "alerts_test.yml"]):
        done = run("promtool", *command)
        if done.returncode:
            return done.stdout + done.stderr
    return None


def compose():
    tool = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    if not shutil.which(tool[0]) or run(*tool, "version").returncode:
        return skipped("docker-compose")
    for files in (["docker-compose.yml"], ["docker-compose.yml", "deploy/pgbouncer/docker-compose.yml"]):
        done = run(*tool, *[part for file in files for part in ("-f", file)], "config", "-q")
        if done.returncode:
            return done.stderr
    return None


def skipped(tool):
    print(f"check-deploy: SKIPPED, {tool} is not on this machine: ", end="")


def main():
    failed = False
    for check in (kubernetes, systemd, prometheus, compose):
        fault = check()
        print(f"{check.__name__} {'FAILED' if fault else 'done'}", flush=True)
        if fault:
            failed = True
            print(fault)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
