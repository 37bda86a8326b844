#!/usr/bin/env python3
"""Tests the API against openapi.json with Schemathesis: valid and invalid requests, all checks.

Uses a private PostgreSQL, Redis and server (target/debug/testshop). Schemathesis is installed into a private virtual
environment. Expected deviations and their reasons are listed in schemathesis.toml. Further options are passed on to
Schemathesis.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

from services import InstallError, install_tools
from test_server import HERE, PASSWORD, ROOT, rerun_with_services, running_server, testshop


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=50,
        metavar="N",
        help="requests per operation and phase, about (default: %(default)s)",
    )
    arguments, options = parser.parse_known_args()
    rerun_with_services("api-test")
    try:
        binaries = install_tools("api-test")
    except InstallError as error:
        sys.exit(f"api_test: {error}")
    document = ROOT / "target/openapi.json"
    document.write_text(testshop("openapi"))
    subprocess.run([binaries / "openapi-spec-validator", document], check=True)
    with running_server(products=200) as (url, server):
        config: list[str | Path] = ["--config-file", HERE / "schemathesis.toml"]
        limits = ["--checks", "all", "--max-examples", str(arguments.examples)]
        command: list[str | Path] = [binaries / "st", *config, "run", document, "--url", url, *limits, *options]
        hooks = {"SCHEMATHESIS_HOOKS": "api_hooks", "PYTHONPATH": str(HERE), "SHOP": url, "SHOP_PASSWORD": PASSWORD}
        running = subprocess.Popen(
            command, env={**os.environ, **hooks}, cwd=ROOT / "target", stdout=subprocess.PIPE, text=True
        )
        assert running.stdout is not None
        cases = None
        for line in running.stdout:
            print(line, end="", flush=True)
            if found := re.search(r"([\d,]+) generated", line):
                cases = found.group(1)
        status = running.wait()
        is_alive = server.poll() is None
        is_healthy = is_alive and json.load(urllib.request.urlopen(url + "/healthz", timeout=10))["status"] == "ok"
    if status or not is_healthy:
        return status or 1
    if not cases:
        sys.exit("api_test: the output of Schemathesis contains no number of requests")
    # a row of the table of stress.py
    observed = f"{cases} requests by Schemathesis: every response matches the description"
    print(f"RESULT | requests inside and outside the API description get described responses | {observed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
