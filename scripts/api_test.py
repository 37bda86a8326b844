#!/usr/bin/env python3
"""Tries the API out against its own description with Schemathesis: valid and invalid requests, all checks.

    api_test.py [--examples N] [SCHEMATHESIS OPTIONS]    N: about so many requests an operation and phase (default 50)

Brings its own PostgreSQL, Redis and server (target/debug/testshop), and Schemathesis in a private venv.
What of it is said to be no fault, and why, stands in schemathesis.toml beside this file.
"""
import json, os, re, subprocess, sys, threading, urllib.request, venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
SHOP = ROOT / "target/debug/testshop"
SCHEMATHESIS = "schemathesis==4.32.5"
VALIDATOR = "openapi-spec-validator==0.8.4"
PASSWORD = "a password for this run"


def tools():
    folder = ROOT / "target/api-test"
    if not (folder / "bin/st").exists() or not (folder / "bin/openapi-spec-validator").exists():
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", SCHEMATHESIS, VALIDATOR], check=True)
    return folder / "bin"


def main():
    if not os.environ.get("SERVICES_INSTANCE"):
        subprocess.run(["cargo", "build", "--locked", "--bin", "testshop"], cwd=ROOT, check=True)
        run = [sys.executable, HERE / "services.py", "run", "api-test", "--", sys.executable, __file__, *sys.argv[1:]]
        return subprocess.run(run).returncode
    options, examples = sys.argv[1:], "50"
    if options[:1] == ["--examples"]:
        examples, options = options[1], options[2:]
    binaries = tools()
    environment = {**os.environ, "JWT_SECRET": "of a run that ends with its database", "PBKDF2_ITERATIONS": "1000",
                   "LISTEN_ADDR": "127.0.0.1:0", "ADMIN_ADDR": "127.0.0.1:0", "RATE_LIMIT": "off", "RUST_LOG": "warn"}
    shop = lambda *arguments, **more: subprocess.run([SHOP, *arguments], env=environment, check=True, stdout=subprocess.PIPE, text=True, **more).stdout
    shop("migrate")
    shop("seed", "--products", "200")
    shop("create-admin", "--username", "staff", "--email", "staff@example.com", input=PASSWORD)
    document = ROOT / "target/openapi.json"
    document.write_text(shop("openapi"))
    subprocess.run([binaries / "openapi-spec-validator", document], check=True)
    server = subprocess.Popen([SHOP, "serve"], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        url = next(found.group(1) for line in server.stdout if (found := re.match(r"listening on (\S+)", line)))
        threading.Thread(target=server.stdout.read, daemon=True).start()
        run = [binaries / "st", "--config-file", HERE / "schemathesis.toml", "run", document, "--url", url,
               "--checks", "all", "--max-examples", examples, *options]
        hooks = {**os.environ, "SCHEMATHESIS_HOOKS": "api_hooks", "PYTHONPATH": str(HERE), "SHOP": url, "SHOP_PASSWORD": PASSWORD}
        code = subprocess.run(run, env=hooks, cwd=ROOT / "target").returncode
        alive = server.poll() is None and json.load(urllib.request.urlopen(url + "/healthz", timeout=10))["status"] == "ok"
        return code if alive else 1
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    sys.exit(main())
