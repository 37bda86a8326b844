"""A shop for a script that tries it out: schema, demo data, a staff account, and a server that ends with it."""
import contextlib, os, re, subprocess, sys, threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SHOP = Path(os.environ.get("TESTSHOP_PROGRAM", ROOT / "target/debug/testshop"))
STAFF, PASSWORD = "staff", "a password for this run"
ENVIRONMENT = {"JWT_SECRET": "of a run that ends with its database", "PBKDF2_ITERATIONS": "1000", "LISTEN_ADDR": "127.0.0.1:0",
               "ADMIN_ADDR": "127.0.0.1:0", "RATE_LIMIT": "off", "RUST_LOG": "warn", "TRUSTED_PROXIES": "127.0.0.0/8"}


def in_services(name):
    """Runs this same script again with a PostgreSQL and a Redis of its own, and the program built; exits with its code."""
    if os.environ.get("SERVICES_INSTANCE"):
        return
    if "TESTSHOP_PROGRAM" not in os.environ:
        subprocess.run(["cargo", "build", "--locked", "--bin", "testshop"], cwd=ROOT, check=True)
    run = [sys.executable, HERE / "services.py", "run", name, "--", sys.executable, *sys.argv]
    sys.exit(subprocess.run(run).returncode)


def shop(*arguments, **more):
    """What one of the program's commands prints."""
    return subprocess.run([SHOP, *arguments], env={**os.environ, **ENVIRONMENT}, check=True, stdout=subprocess.PIPE, text=True, **more).stdout


@contextlib.contextmanager
def served(products):
    """Gives the URL of a server, and the process."""
    shop("migrate")
    shop("seed", "--products", str(products))
    shop("create-admin", "--username", STAFF, "--email", "staff@example.com", input=PASSWORD)
    server = subprocess.Popen([SHOP, "serve"], env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, text=True)
    try:
        url = next(found.group(1) for line in server.stdout if (found := re.match(r"listening on (\S+)", line)))
        threading.Thread(target=server.stdout.read, daemon=True).start()
        yield url, server
    finally:
        server.terminate()
        server.wait(30)
