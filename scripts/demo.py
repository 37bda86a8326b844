#!/usr/bin/env python3
"""Runs the server on this machine with a private PostgreSQL and Redis, demo data and two accounts.

The first run creates the schema, 1,000 products, the accounts `user1` and `staff` with random passwords, and a random
JWT secret. The address and the passwords are written to .demo.env.
"""

import argparse
import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

from services import CHECKOUT, Instance, instances_dir
from services.paths import write_private

DEMO_ENV = CHECKOUT / ".demo.env"
PID_FILE = instances_dir() / "demo" / "server.pid"
GREETING = """
TestShop listens on {url}. In another terminal, in this directory:

  . ./.demo.env
  TOKEN=$(curl -s $SHOP/api/login/ -d username=user1 -d password=$USER_PASSWORD |
    python3 -c 'import json,sys; print(json.load(sys.stdin)["token"])')
  curl -s $SHOP/api/products/ -H "Authorization: Bearer $TOKEN"
  curl -s $SHOP/api/products/export/ -H "Authorization: Bearer $TOKEN" -o products.xlsx

The account `staff`, with $STAFF_PASSWORD, can also write: try the admin page at {url}/admin/.
Ctrl-C stops the server; `make stop` also stops the databases.
"""


def load_credentials(instance: Instance) -> tuple[dict[str, str], bool]:
    """Returns the passwords and secrets of the demo, and whether they were generated just now."""
    settings = instance.settings()
    credentials = settings.setdefault("demo", {})
    is_new = "user" not in credentials
    for name, size in (("user", 12), ("staff", 12), ("jwt", 48), ("api", 48)):
        credentials.setdefault(name, secrets.token_urlsafe(size))
    instance.save(settings)
    return credentials, is_new


def prepare(testshop: str, environment: dict[str, str], credentials: dict[str, str], is_new: bool) -> None:
    """Migrates and seeds the database and creates the accounts; exits when a required step fails."""

    def run(*arguments: str, password: str | None = None) -> None:
        done = subprocess.run([testshop, *arguments], env=environment, input=password, text=True, stdout=sys.stderr)
        if done.returncode:
            sys.exit(done.returncode)

    def try_run(*arguments: str, password: str) -> None:
        null = subprocess.DEVNULL
        subprocess.run([testshop, *arguments], env=environment, input=password, text=True, stdout=null, stderr=null)

    run("migrate")
    run("seed", "--products", "1000", "--if-empty")
    run("seed", "--products", "0", "--users", "1", password=credentials["user"])
    try_run("create-admin", "--username", "staff", "--email", "staff@example.com", password=credentials["staff"])
    if is_new:
        # an existing database may contain the accounts with other passwords
        try_run("set-password", "user1", password=credentials["user"])
        try_run("set-password", "staff", password=credentials["staff"])


def run(testshop: str) -> int:
    """Serves until the server ends; returns its exit status."""
    if pid := running_server():
        sys.exit(f"the demo server already runs as process {pid}; `make stop` stops it")
    instance = Instance("demo")
    environment = {**os.environ, **instance.up()}
    environment.setdefault("LISTEN_ADDR", "127.0.0.1:8000")
    credentials, is_new = load_credentials(instance)
    if not (environment.get("JWT_SECRET") or environment.get("JWT_SECRET_FILE")):
        environment["JWT_SECRET"] = credentials["jwt"]
    serve_environment = dict(environment)
    if not os.environ.get("DATABASE_URL"):
        # on the private database the server has a role that can change rows but not the schema
        host = environment["DATABASE_URL"].rsplit("@", 1)[1]
        serve_environment["DATABASE_URL"] = f"postgres://testshop_api:{credentials['api']}@{host}"
        environment["API_DATABASE_URL"] = serve_environment["DATABASE_URL"]
    prepare(testshop, environment, credentials, is_new)
    server = subprocess.Popen([testshop, "serve"], env=serve_environment, stdout=subprocess.PIPE, text=True)
    PID_FILE.write_text(str(server.pid))
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    assert server.stdout is not None
    while server.poll() is None:
        # Ctrl-C reaches the server too, which then shuts down gracefully
        with contextlib.suppress(KeyboardInterrupt):
            for line in server.stdout:
                print(line, end="", flush=True)
                if listening := re.search(r"^listening on http://\S+:(\d+)$", line.strip()):
                    greet(f"http://127.0.0.1:{listening.group(1)}", credentials)
            server.wait()
    return server.returncode


def greet(url: str, credentials: dict[str, str]) -> None:
    """Writes the address and the passwords to .demo.env, and prints what to try."""
    passwords = f"USER_PASSWORD={credentials['user']}\nSTAFF_PASSWORD={credentials['staff']}\n"
    write_private(DEMO_ENV, f"SHOP={url}\n{passwords}")
    print(GREETING.format(url=url), flush=True)


def running_server() -> int | None:
    """Returns the process id of the server of an earlier `run`, if it still runs."""
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
        pid = int(PID_FILE.read_text())
        if b"testshop" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return None


def stop() -> None:
    """Stops the server and its databases."""
    if pid := running_server():
        os.kill(pid, signal.SIGTERM)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.05)
    PID_FILE.unlink(missing_ok=True)
    Instance("demo").down()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run_parser = commands.add_parser("run", help="serve until Ctrl-C")
    default = str(CHECKOUT / "target/release/testshop")
    run_parser.add_argument("testshop", nargs="?", default=default, help="the program (default: %(default)s)")
    commands.add_parser("stop", help="stop the server, PostgreSQL and Redis of this checkout; their data stays")
    arguments = parser.parse_args()
    if arguments.command == "run":
        return run(arguments.testshop)
    stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
