#!/usr/bin/env python3
"""Builds the server with profile-guided optimisation, and compares it with the usual release build.

    python3 scripts/pgo.py

Builds an instrumented server, records a profile while wrk loads it, builds the server again with the profile, and
measures both builds in alternating rounds. Takes about 15 minutes. Needs wrk, and llvm-profdata of rustc's LLVM
version (`rustup component add llvm-tools`, or Debian's package llvm-VERSION). The result is target/pgo/testshop.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "target/pgo"
PROFILES, PROFILE = OUTPUT / "profiles", OUTPUT / "testshop.profdata"
INSTRUMENTED, OPTIMISED, USUAL = OUTPUT / "instrumented", OUTPUT / "testshop", ROOT / "target/release/testshop"
ROUNDS = 15
sys.path.insert(0, str(ROOT / "loadtest/bench"))
import load  # noqa: E402
import servers  # noqa: E402

PATH = "/api/products/"
GZIP = {"Accept-Encoding": "gzip"}


def rustc(*arguments: str) -> str:
    return subprocess.run(["rustc", *arguments], check=True, capture_output=True, text=True, cwd=ROOT).stdout


def find_profdata() -> str:
    """Returns the path of llvm-profdata. That of another LLVM version cannot read the profiles."""
    found = re.search(r"^LLVM version: (\d+)", rustc("-vV"), re.M)
    version = found[1] if found else ""
    candidates = [
        *Path(rustc("--print", "sysroot").strip()).glob("lib/rustlib/*/bin/llvm-profdata"),
        Path(f"/usr/lib/llvm-{version}/bin/llvm-profdata"),
        Path(shutil.which(f"llvm-profdata-{version}") or "/nonexistent"),
    ]
    for path in candidates:
        if path.exists():
            return str(path)
    sys.exit(f"pgo: llvm-profdata {version} is missing: rustup component add llvm-tools, or install llvm-{version}")


def build(flags: str, target: Path) -> None:
    """Builds the server with these flags of rustc. They do not apply to build scripts, because a target is named."""
    host = re.search(r"^host: (\S+)", rustc("-vV"), re.M)
    assert host
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--bin", "testshop", "--target", host[1]]
    environment = {**os.environ, "RUSTFLAGS": flags, "CARGO_TARGET_DIR": str(OUTPUT / "build")}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    shutil.copy2(OUTPUT / "build" / host[1] / "release/testshop", target)


def start(program: Path, database: str, lease: str) -> servers.TestShop:
    servers.TESTSHOP = program
    return servers.start_testshop(database, LEASE=lease)


def train() -> None:
    """Loads the instrumented server with reads of several sizes, writes, logins and an export."""
    servers.TESTSHOP = USUAL
    for products in (100, 1000):
        database = servers.catalogue(products)
        with servers.leases_enabled(database):
            for lease in ("0s", servers.LEASE):
                load_server(start(INSTRUMENTED, database, lease), products)
                servers.TESTSHOP = USUAL
        servers.psql(database, "delete from products where name like 'Load %'")


def load_server(server: servers.TestShop, products: int) -> None:
    with servers.running(server):
        etag = server.get(PATH)[0].headers["ETag"] or ""
        for headers in ({}, GZIP, {"If-None-Match": etag}):
            load.wrk(server, PATH, 64, 3, headers=headers)
        load.wrk(server, PATH + "1/", 16, 2)
        load.wrk(server, PATH + "?page_size=20&ordering=price", 8, 2)
        server.get(PATH + "export/")
        if products == 100:
            load.wrk(server, PATH, 8, 2, script="create.lua")
            load.wrk(server, "/api/login/", 4, 2, script="login.lua")


def compare() -> None:
    """Measures both builds in alternating rounds, and prints the ratios of the new build to the usual one."""
    database = servers.catalogue(100)
    servers.TESTSHOP = USUAL
    with servers.leases_enabled(database):
        both = {"usual": start(USUAL, database, servers.LEASE), "pgo": start(OPTIMISED, database, servers.LEASE)}
        with servers.running(*both.values()):
            etag = both["usual"].get(PATH)[0].headers["ETag"] or ""
            for title, headers in (("list of 100", {}), ("304", {"If-None-Match": etag})):
                measures = {
                    name: partial(load.wrk_with_cpu, server, PATH, 64, 1, headers=headers)
                    for name, server in both.items()
                }
                results = load.interleave(ROUNDS, measures)
                for key in ("rate", "cpu", "user"):
                    columns = [load.column(results[name], key) for name in ("pgo", "usual")]
                    values = load.ratios(*columns)
                    spread = f"{min(values):.3f} .. {max(values):.3f}"
                    print(f"{title}, {key}: {median(values):.3f} of the usual build [{spread}]", flush=True)


def main() -> int:
    if not os.environ.get("SERVICES_INSTANCE"):
        services = [sys.executable, str(ROOT / "scripts/services"), "run", "pgo", "--"]
        return subprocess.run([*services, sys.executable, __file__]).returncode
    profdata = find_profdata()
    shutil.rmtree(PROFILES, ignore_errors=True)
    PROFILES.mkdir(parents=True)
    usual = ["cargo", "build", "--release", "--locked", "--quiet", "--bin", "testshop"]
    subprocess.run(usual, cwd=ROOT, check=True)
    print("building the instrumented server", flush=True)
    build(f"-Cprofile-generate={PROFILES}", INSTRUMENTED)
    print("recording the profile", flush=True)
    train()
    subprocess.run([profdata, "merge", "-o", PROFILE, PROFILES], check=True)
    print("building with the profile", flush=True)
    build(f"-Cprofile-use={PROFILE}", OPTIMISED)
    compare()
    print(f"built {OPTIMISED.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
