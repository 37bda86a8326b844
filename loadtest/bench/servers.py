"""The processes under test (TestShop, the bare hyper baseline, the peers), and the PostgreSQL and Redis they share."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Self
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
TESTSHOP = ROOT / "target/release/testshop"
EXAMPLES = ROOT / "target/release/examples"
PEERS = ["axum", "fastify", "fastapi", "django"]
PASSWORD = "a password for load tests"
SECRET = "a secret for load tests: more than 32 bytes"
ITERATIONS = 1000  # of PBKDF2, except in the case that measures hashing
LEASE = "25ms"  # in the cases that measure leases
JSON = {"Content-Type": "application/json"}
sys.path.insert(0, str(ROOT / "scripts"))
from services import free_port  # noqa: E402

# -- PostgreSQL and Redis ----------------------------------------------------------------------------------------------


def database_url(database: str) -> str:
    return os.environ["DATABASE_URL"].rsplit("/", 1)[0] + "/" + database


def postgres_program(name: str) -> str:
    return os.path.join(os.environ.get("PG_BIN", ""), name)


def psql(database: str, sql: str, *options: str) -> str:
    command = [postgres_program("psql"), "-qXAt", database_url(database), *options, "-c", sql]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def pgbench(database: str, script: Path, connections: int = 1, seconds: int = 2) -> float:
    """Transactions per second of a script, with prepared statements."""
    command = [postgres_program("pgbench"), "-n", "-M", "prepared", "-c", str(connections), "-T", str(seconds)]
    command += ["-f", str(script), database_url(database)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return number_in(r"tps = ([\d.]+)", output)


def number_in(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if not found:
        raise ValueError(f"no {pattern!r} in {text[:300]!r}")
    return float(found.group(1))


def redis(*command: str) -> str:
    """Sends one command in RESP, and returns its reply."""
    url = urlsplit(os.environ["REDIS_URL"])
    with (
        socket.create_connection((url.hostname or "127.0.0.1", url.port or 6379), timeout=5) as connection,
        connection.makefile("rb") as stream,
    ):

        def call(*arguments: str) -> str:
            encoded = [argument.encode() for argument in arguments]
            parts = b"".join(b"$%d\r\n%s\r\n" % (len(argument), argument) for argument in encoded)
            connection.sendall(b"*%d\r\n" % len(encoded) + parts)
            head = stream.readline()
            return stream.read(int(head[1:]) + 2).decode() if head[:1] == b"$" else head.decode()

        if url.password:
            call("AUTH", *([url.username] if url.username else []), url.password)
        return call(*command)


def redis_commands() -> int:
    return int(number_in(r"total_commands_processed:(\d+)", redis("INFO", "stats")))


def environment(database: str, **settings: object) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": database_url(database),
        "JWT_SECRET": SECRET,
        "PBKDF2_ITERATIONS": str(ITERATIONS),
        "LISTEN_ADDR": "127.0.0.1:0",
        "ADMIN_ADDR": "127.0.0.1:0",
        "RATE_LIMIT": "off",
        "REDIS_PREFIX": database,
        **{name: str(value) for name, value in settings.items()},
    }


def catalogue(products: int) -> str:
    """Name of a database with this number of demo products and one staff account; created on first use."""
    name = f"load_{products}"
    if psql("testshop", f"select 1 from pg_database where datname = '{name}'"):
        return name

    def run(*arguments: str, stdin: str | None = None) -> None:
        command = [str(TESTSHOP), *arguments]
        subprocess.run(command, env=environment(name), check=True, capture_output=True, text=True, input=stdin)

    psql("testshop", f"create database {name}")
    run("migrate")
    run("seed", "--products", "0", "--users", "1", stdin=PASSWORD)
    run("seed", "--products", str(products))
    psql(name, "update users set is_staff = true")
    psql(name, "vacuum analyze")
    return name


@contextmanager
def leases_enabled(database: str) -> Iterator[None]:
    """Lets leases last for LEASE during the block: the database decides, not the servers' settings."""

    def set_duration(duration: str) -> None:
        environ = environment(database, LEASE=duration)
        subprocess.run([TESTSHOP, "migrate"], env=environ, check=True, capture_output=True)

    set_duration(LEASE)
    try:
        yield
    finally:
        set_duration("0s")


def transactions(database: str) -> int:
    """Transactions that PostgreSQL has counted so far in a database."""
    counted = f"select coalesce(sum(xact_commit), 0) from pg_stat_database where datname = '{database}'"
    return int(psql("testshop", counted))


def bump_version(database: str) -> None:
    """Makes every cached list out of date."""
    psql(
        database,
        "insert into catalogue_changes (transaction, everything) values (pg_current_xact_id(), true)",
    )


class PostgresCpu:
    """CPU seconds used by all PostgreSQL processes."""

    def __init__(self) -> None:
        checkpointer = psql("testshop", "select pid from pg_stat_activity where backend_type = 'checkpointer'")
        self.postmaster = parent_of(int(checkpointer))

    def seconds(self) -> float:
        return sum(cpu_seconds(pid, 15 if pid == self.postmaster else 13) for pid in process_tree(self.postmaster))


# -- processes ---------------------------------------------------------------------------------------------------------


def stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()


def parent_of(pid: int) -> int:
    return int(stat_fields(pid)[1])


def process_tree(root: int) -> set[int]:
    """A process and all its descendants."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError, IndexError):
                parents[int(name)] = parent_of(int(name))
    tree = {root}
    while children := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= children
    return tree


def cpu_seconds(pid: int, end: int = 13) -> float:
    """User and system CPU seconds of a process; end=12: user mode only, end=15: including exited children."""
    try:
        fields = stat_fields(pid)
    except OSError:
        return 0
    return sum(int(field) for field in fields[11:end]) / os.sysconf("SC_CLK_TCK")


class Server:
    """A process group that serves on one address."""

    def __init__(self, name: str, command: list[object], env: Mapping[str, str], url: str | None = None) -> None:
        self.name = name
        self.headers: dict[str, str] = {}
        self.started = time.monotonic()
        self.addresses: dict[str, str] = {}  # as printed at start: "listening", "health and metrics"
        self.process = subprocess.Popen(
            [str(part) for part in command],
            env=env,
            stdout=subprocess.DEVNULL if url else subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            process_group=0,
        )
        self.url = url or self.read_addresses()

    def read_addresses(self) -> str:
        output = self.process.stdout
        assert output
        for line in output:
            found = re.match(r"(.*) on (http://\S+)", line)
            if found:
                self.addresses[found.group(1)] = found.group(2)
            if self.is_started():
                break
        else:
            sys.exit(f"bench: {self.name} did not start")
        threading.Thread(target=output.read, daemon=True).start()
        return self.addresses["listening"]

    def is_started(self) -> bool:
        return "listening" in self.addresses

    def pids(self) -> set[int]:
        return process_tree(self.process.pid)

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far: total, and in user mode."""
        pids = self.pids()
        return {"cpu": sum(cpu_seconds(pid) for pid in pids), "user": sum(cpu_seconds(pid, 12) for pid in pids)}

    def memory(self, field: str = "VmRSS") -> float:
        """Resident memory (or another field of /proc/PID/status) of all its processes in MiB."""
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in self.pids()]
        return sum(number_in(rf"{field}:\s+(\d+)", status) for status in statuses) / 1024

    def reset_peak_memory(self) -> None:
        """Resets VmHWM to the present resident memory."""
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    # -- as a client

    def connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        assert parts.hostname
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=600)

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Sends one request on a new connection; returns the response and its body."""
        connection = self.connect()
        payload = json.dumps(body) if isinstance(body, Mapping) else body
        all_headers = {**(JSON if body is not None else {}), **(headers or {})}
        connection.request(method, path, body=payload, headers=all_headers)
        response = connection.getresponse()
        return response, response.read()

    def login(self) -> Self:
        response, body = self.request("POST", "/api/login/", {"username": "user1", "password": PASSWORD})
        assert response.status == 200, (self.name, response.status, body)
        self.headers = {"Authorization": f"Bearer {json.loads(body)['token']}"}
        return self

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[http.client.HTTPResponse, bytes]:
        response, body = self.request("GET", path, headers={**self.headers, **(headers or {})})
        assert response.status in (200, 304), (self.name, path, response.status, body[:300])
        return response, body

    def metrics(self) -> dict[str, float]:
        """Counters and gauges by name without prefix, with their labels as printed; only TestShop has any."""
        return {}


class TestShop(Server):
    def is_started(self) -> bool:
        return "health and metrics" in self.addresses

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(self.addresses["health and metrics"] + "/metrics") as response:
            text = response.read().decode()
        samples = re.findall(r"^testshop_(\w+(?:\{[^}]*\})?) (\S+)$", text, re.M)
        return {name: float(value) for name, value in samples}


def start_testshop(database: str, **settings: object) -> TestShop:
    return TestShop("TestShop", [TESTSHOP, "serve"], environment(database, **settings)).login()


def start_leased_testshop(database: str) -> TestShop:
    """TestShop with leases, which the database must allow (`leases_enabled`)."""
    testshop = start_testshop(database, LEASE=LEASE)
    testshop.name = "TestShop with leases"
    return testshop


def start_baseline(body: bytes) -> Server:
    """A bare hyper server (loadtest/baselines/bare_hyper.rs) that returns these bytes for every request."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        return Server("baseline", [EXAMPLES / "bare_hyper", "127.0.0.1:0", file.name], os.environ)


def start_peer(name: str, database: str, **settings: object) -> Server:
    port = free_port()
    env = environment(database, PORT=port, **settings)
    server = Server(name, [ROOT / "loadtest/peers" / name / "run"], env, f"http://127.0.0.1:{port}")
    deadline = time.monotonic() + 60
    while True:
        try:
            return server.login()
        except OSError:
            if time.monotonic() > deadline or server.process.poll() is not None:
                sys.exit(f"bench: peer {name} did not start; run loadtest/peers/{name}/run to see why")
            time.sleep(0.1)


def database_url_through(proxy: Server, database: str) -> str:
    """The URL of a database whose host is a proxy (loadtest/baselines/delay_proxy.rs)."""
    url = urlsplit(database_url(database))
    account = url.netloc.rpartition("@")[0]
    return url._replace(netloc=f"{account}@{urlsplit(proxy.url).netloc}").geturl()


def round_trip(proxy: Server) -> float:
    """The median time (ms) between asking PostgreSQL for an encrypted connection and its answer."""
    address = urlsplit(proxy.url)
    assert address.hostname and address.port
    tls, gss = (bytes([0, 0, 0, 8, 4, 210, 22, code]) for code in (47, 48))

    def ask() -> float:
        with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
            # the first answer includes the start of a process
            connection.sendall(tls)
            connection.recv(1)
            started = time.monotonic()
            connection.sendall(gss)
            connection.recv(1)
            return (time.monotonic() - started) * 1000

    return median(ask() for _ in range(20))


def start_delay_proxy(milliseconds: float) -> Server:
    """A proxy in front of PostgreSQL that delays each direction."""
    url = urlsplit(database_url(""))
    target = f"{url.hostname}:{url.port or 5432}"
    return Server("delay proxy", [EXAMPLES / "delay_proxy", "127.0.0.1:0", target, milliseconds], os.environ)


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    """Stops the servers at the end of the block."""
    try:
        yield
    finally:
        for server in servers:
            server.stop()
