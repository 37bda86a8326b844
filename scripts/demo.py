#!/usr/bin/env python3
"""Runs the shop on this machine with everything it needs, demo data and two demo accounts.

    demo.py run [TESTSHOP]    serve until Ctrl-C; TESTSHOP is the binary (target/release/testshop)
    demo.py stop              end the server, PostgreSQL and Redis of this checkout; their data stays

What `run` makes: a private PostgreSQL and Redis (see services.py), the schema, 1,000 products, the accounts
`user1` and `staff` with random passwords, a random JWT secret. Passwords and address stand in .demo.env.
"""
import contextlib, os, secrets, signal, subprocess, sys, time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import services

DEMO_ENV = services.CHECKOUT / ".demo.env"
PID_FILE = services.home() / "instances" / "demo" / "server.pid"


def private(path, text):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def run(testshop):
    instance = services.Instance("demo")
    environment = {**os.environ, **instance.up()}
    environment.setdefault("LISTEN_ADDR", "127.0.0.1:8000")
    settings = instance.settings()
    known = settings.setdefault("demo", {})
    first = "user" not in known
    for name in ("user", "staff", "jwt", "api"):
        known.setdefault(name, secrets.token_urlsafe(12 if name in ("user", "staff") else 48))
    instance.save(settings)
    if not (environment.get("JWT_SECRET") or environment.get("JWT_SECRET_FILE")):
        environment["JWT_SECRET"] = known["jwt"]

    def shop(*arguments, password=None, must=True):
        done = subprocess.run([testshop, *arguments], env=environment, input=password, text=True,
                              stdout=sys.stderr if must else subprocess.DEVNULL, stderr=None if must else subprocess.DEVNULL)
        if must and done.returncode:
            sys.exit(done.returncode)

    serving = dict(environment)
    if not os.environ.get("DATABASE_URL"):  # a database of our own: serve as a role that can change rows and no schema
        owner = environment["DATABASE_URL"]
        serving["DATABASE_URL"] = f"postgres://testshop_api:{known['api']}@{owner.rsplit('@', 1)[1]}"
        environment["API_DATABASE_URL"] = serving["DATABASE_URL"]

    shop("migrate")
    shop("seed", "--products", "1000", "--if-empty")
    shop("seed", "--products", "0", "--users", "1", password=known["user"])
    shop("create-admin", "--username", "staff", "--email", "staff@example.com", password=known["staff"], must=False)
    if first:  # on a database that was there before, the accounts may be too
        shop("set-password", "user1", password=known["user"], must=False)
        shop("set-password", "staff", password=known["staff"], must=False)

    port = environment["LISTEN_ADDR"].rsplit(":", 1)[1]
    private(DEMO_ENV, f"SHOP=http://127.0.0.1:{port}\nUSER_PASSWORD={known['user']}\nSTAFF_PASSWORD={known['staff']}\n")
    print(f"""
The shop is at http://127.0.0.1:{port}. In another terminal, in this folder:

  . ./.demo.env
  TOKEN=$(curl -s $SHOP/api/login/ -d username=user1 -d password=$USER_PASSWORD | python3 -c 'import json,sys; print(json.load(sys.stdin)["token"])')
  curl -s $SHOP/api/products/ -H "Authorization: Bearer $TOKEN"
  curl -s $SHOP/api/products/export/ -H "Authorization: Bearer $TOKEN" -o products.xlsx

`staff`, with $STAFF_PASSWORD, may also write. Ctrl-C ends the server; `make stop` ends the databases too.
""", flush=True)
    server = subprocess.Popen([testshop, "serve"], env=serving)
    PID_FILE.write_text(str(server.pid))
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    while True:
        try:
            return server.wait()
        except KeyboardInterrupt:
            pass  # the server heard it too, and finishes what runs


def stop():
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
        pid = int(PID_FILE.read_text())
        if b"testshop" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)
            while Path(f"/proc/{pid}").exists():
                time.sleep(0.05)
        PID_FILE.unlink()
    services.Instance("demo").down()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["run", *binary]:
            sys.exit(run(binary[0] if binary else str(services.CHECKOUT / "target/release/testshop")))
        case ["stop"]:
            stop()
        case _:
            sys.exit(__doc__)
