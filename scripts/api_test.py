#!/usr/bin/env python3
"""Tries the API out against its own description with Schemathesis: valid and invalid requests, all checks.

    api_test.py [--examples N] [SCHEMATHESIS OPTIONS]    N: about so many requests an operation and phase (default 50)

Brings its own PostgreSQL, Redis and server (target/debug/testshop), and Schemathesis in a private venv.
What of it is said to be no fault, and why, stands in schemathesis.toml beside this file.
"""
import json, os, re, subprocess, sys, urllib.request, venv
from pathlib import Path

from served import HERE, PASSWORD, ROOT, in_services, served, shop

SCHEMATHESIS = "schemathesis==4.32.5"
VALIDATOR = "openapi-spec-validator==0.8.4"


def tools():
    folder = ROOT / "target/api-test"
    if not (folder / "bin/st").exists() or not (folder / "bin/openapi-spec-validator").exists():
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", SCHEMATHESIS, VALIDATOR], check=True)
    return folder / "bin"


def main():
    in_services("api-test")
    options, examples = sys.argv[1:], "50"
    if options[:1] == ["--examples"]:
        examples, options = options[1], options[2:]
    binaries = tools()
    document = ROOT / "target/openapi.json"
    document.write_text(shop("openapi"))
    subprocess.run([binaries / "openapi-spec-validator", document], check=True)
    with served(products=200) as (url, server):
        run = [binaries / "st", "--config-file", HERE / "schemathesis.toml", "run", document, "--url", url,
               "--checks", "all", "--max-examples", examples, *options]
        hooks = {**os.environ, "SCHEMATHESIS_HOOKS": "api_hooks", "PYTHONPATH": str(HERE), "SHOP": url, "SHOP_PASSWORD": PASSWORD}
        running = subprocess.Popen(run, env=hooks, cwd=ROOT / "target", stdout=subprocess.PIPE, text=True)
        cases = None
        for line in running.stdout:
            print(line, end="", flush=True)
            if found := re.search(r"([\d,]+) generated", line):
                cases = found.group(1)
        alive = server.poll() is None and json.load(urllib.request.urlopen(url + "/healthz", timeout=10))["status"] == "ok"
    if running.wait() == 0 and alive and not cases:
        sys.exit("api_test: Schemathesis does not tell how many requests it made")
    if running.returncode == 0 and alive:
        # for the table of hard.py
        print(f"SEEN | no request that the description allows or forbids makes a fault | {cases} requests by Schemathesis: each answered as described")
    return running.returncode if alive else 1


if __name__ == "__main__":
    sys.exit(main())
