"""A TestShop server for scripts that test it, with demo data and a staff account; it ends with the script."""

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PROGRAM = Path(os.environ.get("TESTSHOP_PROGRAM", ROOT / "target/debug/testshop"))
STAFF, PASSWORD = "staff", "a password for this run"
ENVIRONMENT = {
    "JWT_SECRET": "a secret that is used for one test run only",
    "PBKDF2_ITERATIONS": "1000",
    "LISTEN_ADDR": "127.0.0.1:0",
    "ADMIN_ADDR": "127.0.0.1:0",
    "RATE_LIMIT": "off",
    "RUST_LOG": "warn",
    "TRUSTED_PROXIES": "127.0.0.0/8",
}


def rerun_with_services(name: str) -> None:
    """Builds the program, runs the current script again with a private PostgreSQL and Redis, and exits with its status.

    Returns when the script already runs with them.
    """
    if os.environ.get("SERVICES_INSTANCE"):
        return
    if "TESTSHOP_PROGRAM" not in os.environ:
        subprocess.run(["cargo", "build", "--locked", "--bin", "testshop"], cwd=ROOT, check=True)
    rerun: list[str | Path] = [sys.executable, HERE / "services", "run", name, "--", sys.executable, *sys.argv]
    sys.exit(subprocess.run(rerun).returncode)


def testshop(*arguments: str, **options: Any) -> str:
    """Runs a subcommand of the program and returns its output."""
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(
        [PROGRAM, *arguments], env=environment, check=True, stdout=subprocess.PIPE, text=True, **options
    )
    output: str = done.stdout
    return output


@contextlib.contextmanager
def running_server(products: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yields the URL and the process of a server with demo data."""
    testshop("migrate")
    testshop("seed", "--products", str(products))
    testshop("create-admin", "--username", STAFF, "--email", "staff@example.com", input=PASSWORD)
    environment = {**os.environ, **ENVIRONMENT}
    server = subprocess.Popen([PROGRAM, "serve"], env=environment, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = next(found.group(1) for line in server.stdout if (found := re.match(r"listening on (\S+)", line)))
        threading.Thread(target=server.stdout.read, daemon=True).start()
        yield url, server
    finally:
        server.terminate()
        server.wait(30)
