#!/usr/bin/env python3
"""Runs the Dockerfile, docker-compose.yml and deploy/ as they are and tests them from outside.

The steps cover the API through the published port, confinement, secrets, outages, a rolling restart, monitoring and a
connection pooler. They use a compose project with its own name and ports, which is removed at the end. Without a
container engine or the images the whole test is skipped with a message.
"""

import argparse
import http.client
import io
import json
import os
import re
import secrets
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compose import (
    ENVIRONMENT,
    IMAGE,
    PASSWORD,
    POOLER,
    PORTS,
    PROFILES,
    PROJECT,
    ROOT,
    Client,
    Completed,
    Failed,
    address,
    api_client,
    balancer_client,
    compose,
    containers,
    docker,
    expect,
    https_client,
    inspect,
    log_in,
    missing_requirement,
    remove_project,
    run,
    staff_client,
    wait_until,
    wait_until_healthy,
)

MAX_IMAGE_BYTES_OVER_BASE = 40_000_000
MAX_SECONDS_TO_HEALTHY = 15
PROGRAM = "/usr/local/bin/testshop"
# less optimisation, because the image is tested and not measured; `--release` builds it as it is shipped
FAST_BUILD = [
    "--build-arg=CARGO_PROFILE_RELEASE_LTO=off",
    "--build-arg=CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16",
    "--build-arg=CARGO_PROFILE_RELEASE_OPT_LEVEL=1",
]

Step = Callable[[], None]

STEPS: list[Step] = []
build_arguments = list(FAST_BUILD)
measurements: dict[str, str] = {}


def step(function: Step) -> Step:
    """Registers a step of the test; steps run in the order of their definitions."""
    STEPS.append(function)
    return function


class Load:
    """Threads that send the same request until the end of a `with` block, and record unexpected results."""

    def __init__(self, client: Client, threads: int = 4, path: str = "/api/products/") -> None:
        self.client, self.path, self.stopping = client, path, threading.Event()
        self.requests = 0
        self.recorded: list[str] = []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.send_requests, daemon=True) for _ in range(threads)]

    def send_requests(self) -> None:
        client = self.client.reconnected()
        while not self.stopping.is_set():
            unexpected = self.send_request(client)
            with self.lock:
                self.requests += 1
                if unexpected:
                    self.recorded.append(unexpected)

    def send_request(self, client: Client) -> str | None:
        """Returns the error, the status or `stale`; `None` for a fresh 200."""
        try:
            response = client.get(self.path)
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        if "detail=stale" in response.headers.get("Cache-Status", ""):
            return "stale"
        return None if response.status == 200 else str(response.status)

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        wait_until("the load runs", lambda: self.requests > 50)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)

    def unexpected(self) -> dict[str, int]:
        """Returns the number of unexpected results by kind since the last call."""
        with self.lock:
            recorded, self.recorded = self.recorded, []
        return {kind: recorded.count(kind) for kind in sorted(set(recorded))}


# -- image, start and API ----------------------------------------------------------------------------------------------


@step
def image() -> None:
    """The image is small, runs unprivileged, adds only the program to its base, and reports invalid settings."""
    began = time.monotonic()
    compose("build", *build_arguments, "secrets")
    measurements["build of the image, with or without cached layers"] = f"{time.monotonic() - began:.0f} s"
    built = json.loads(docker("image", "inspect", IMAGE).stdout)[0]
    config = built["Config"]
    expect(config["User"] == "65532:65532", config["User"])
    expect(config["Entrypoint"] == [PROGRAM] and config["Cmd"] == ["serve"], config)
    expect(config["Healthcheck"]["Test"] == ["CMD", PROGRAM, "healthcheck"], config["Healthcheck"])
    expect(config["StopSignal"] == "SIGTERM" and "org.opencontainers.image.title" in config["Labels"], config)
    base_name = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.M)[-1]
    base = json.loads(docker("image", "inspect", base_name).stdout)[0]
    over = built["Size"] - base["Size"]
    measurements["size of the image over its base"] = f"{over / 1e6:.1f} MB"
    expect(over <= MAX_IMAGE_BYTES_OVER_BASE, f"the image is {over} bytes larger than its base")
    added = sorted(files_of(IMAGE) - files_of(base["Id"]))
    expect([name for name in added if not name.endswith("/")] == [PROGRAM[1:]], added)

    done = docker("run", "--rm", IMAGE, check=False)
    expect(done.returncode == 2, done)
    expect("DATABASE_URL is required" in done.stderr and "JWT_SECRET is required" in done.stderr, done)
    invalid = ["JWT_SECRET=short", "DATABASE_URL=postgres://db/x", "LISTEN_ADDR=here"]
    done = docker("run", "--rm", *[part for setting in invalid for part in ("-e", setting)], IMAGE, check=False)
    expect(done.returncode == 2 and "has 5 bytes" in done.stderr and "LISTEN_ADDR" in done.stderr, done)


def files_of(image: str) -> set[str]:
    """Returns every path in every layer of an image; a directory ends with a slash."""
    names: set[str] = set()
    saved = subprocess.run(["docker", "save", image], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as outer:
        manifest = json.load(extract(outer, "manifest.json"))
        for layer in manifest[0]["Layers"]:
            with tarfile.open(fileobj=extract(outer, layer)) as inner:
                names |= {member.name.removeprefix("./") + ("/" if member.isdir() else "") for member in inner}
    return names


def extract(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    expect(file, f"{name} is not a file")
    return file


@step
def up() -> None:
    """`up` ends with every service healthy within the time limit; a second `up` changes nothing."""
    began = time.monotonic()
    compose("up", "-d")
    wait_until_healthy(*containers("api"))
    seconds = time.monotonic() - began
    measurements["compose up until healthy, with built images"] = f"{seconds:.1f} s"
    expect(seconds <= MAX_SECONDS_TO_HEALTHY, f"{seconds:.1f} s until healthy")

    def running() -> list[tuple[str, str, str]]:
        return [(name, inspect(name)["Id"], inspect(name)["State"]["StartedAt"]) for name in containers()]

    before = running()
    compose("up", "-d")
    after = running()
    expect(after == before, f"{before} became {after}")
    for service in ("secrets", "migrate"):
        state = inspect(containers(service, include_stopped=True)[0])["State"]
        expect(state["Status"] == "exited" and state["ExitCode"] == 0, f"{service}: {state}")


@step
def api() -> None:
    """The main operations of the API work through the published port."""
    api_smoke_test(api_client())


def api_smoke_test(anonymous: Client) -> None:
    ready = anonymous.get("/readyz")
    expect(ready.json() == {"database": "ok", "cache": "ok"}, ready.body)
    expect(anonymous.get("/api/products/").status == 401, "the list requires a login")
    user, staff = register_and_log_in(anonymous), staff_client(anonymous)
    expect(user.post("/api/categories/", {"name": "x"}).status == 403, "a user without staff rights cannot write")
    category, name = "Kitchen" + secrets.token_hex(4), "Kettle" + secrets.token_hex(4)
    expect(staff.post("/api/categories/", {"name": category}).status == 201, "staff can create a category")
    product = {"name": name, "price": "19.99", "category_name": category, "tags": ["new"]}
    created = staff.post("/api/products/", product)
    expect(created.status == 201, f"create: {created.status} {created.body!r}")
    listed = user.get("/api/products/")
    expect(any(found["name"] == name for found in listed.json()), "the next list contains a created product")
    unchanged = user.get("/api/products/", **{"If-None-Match": listed.headers["ETag"]})
    expect(unchanged.status == 304, "an unchanged list gets 304")
    export = user.get("/api/products/export/")
    expect(export.status == 200 and export.body[:2] == b"PK", f"export: {export.status} {export.body[:100]!r}")
    deleted = staff.call("DELETE", created.headers["Location"])
    expect(deleted.status == 204, f"delete: {deleted.status}")
    products = user.get("/api/products/").json()
    expect(not any(found["name"] == name for found in products), "the next list does not contain a deleted product")
    expect(user.call("POST", "/api/logout/").status == 204, "logout")
    expect(user.get("/api/me/").status == 401, "a logout takes effect immediately")


def register_and_log_in(anonymous: Client) -> Client:
    """Returns a client with a new account."""
    name = "ann" + secrets.token_hex(4)
    account = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    response = anonymous.post("/api/register/", account)
    expect(response.status == 201, f"register: {response.status} {response.body!r}")
    return log_in(anonymous, name, PASSWORD)


# -- confinement and secrets -------------------------------------------------------------------------------------------


@step
def confinement() -> None:
    """No container has a right that it does not need, and each sees only its own secrets."""
    compose("up", "-d", profiles=["fleet", "tls", "observe"])
    for name in containers():
        expect_confined(name, inspect(name))
    export = ["export", "-o", "/usr/local/bin/x.xlsx"]
    done = compose("exec", "-T", "api", PROGRAM, *export, check=False)
    expect(done.returncode == 1 and "Read-only file system" in done.stderr, f"{done.stdout} {done.stderr}")
    for role, statements in {
        "testshop_api": ["create table mine (id int)", "drop table products", "create role mine"],
        # the owner of the schema is not a superuser
        "testshop": ["copy (select 1) to program 'id'", "alter system set work_mem = '1GB'", "create role x superuser"],
    }.items():
        for statement in statements:
            done = sql(statement, role=role)
            is_denied = "permission denied" in done.stderr or "must be owner" in done.stderr
            expect(done.returncode != 0 and is_denied, f"{role}: {statement}: {done.stderr}")


def expect_confined(name: str, container: dict[str, Any]) -> None:
    service, host = container["Config"]["Labels"]["com.docker.compose.service"], container["HostConfig"]
    expect(host["CapDrop"] == ["ALL"] and not host["CapAdd"] and not host["Privileged"], f"{name}: capabilities")
    expect(host["ReadonlyRootfs"], f"{name}: the root file system is writable")
    expect("no-new-privileges:true" in host["SecurityOpt"], f"{name}: {host['SecurityOpt']}")
    expect(host["Memory"] > 0 and host["PidsLimit"], f"{name}: no limit on memory or processes")
    published = {port for port, bindings in container["NetworkSettings"]["Ports"].items() if bindings}
    allowed_ports = {"api": {"8000/tcp"}, "balancer": {"8080/tcp"}, "prometheus": {"9090/tcp"}}
    allowed_ports["tls"] = {"8443/tcp", "8081/tcp"}
    expect(published == allowed_ports.get(service, set()), f"{name} publishes {published}")
    status = Path(f"/proc/{container['State']['Pid']}/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        expect(fields["Uid"].split()[0] != "0", f"{name} runs as root")
        effective, permitted = fields["CapEff"].strip(), fields["CapPrm"].strip()
        expect(int(effective, 16) == 0 and int(permitted, 16) == 0, f"{name}: capabilities {effective}")
    secret_mounts = [mount for mount in container["Mounts"] if "secrets" in mount.get("Name", "")]
    visible = {mount["Name"].split("_")[-1] for mount in secret_mounts if mount["Name"].startswith(PROJECT)}
    allowed = {"db": "secrets-db", "cache": "secrets-cache", "api": "secrets-api", "fleet": "secrets-api"}
    allowed["tls"] = "secrets-tls"
    expect(visible == ({allowed[service]} if service in allowed else set()), f"{name} sees {visible}")
    expect(all(not mount["RW"] for mount in secret_mounts), f"{name} can write its secrets")


def sql(text: str, role: str = "postgres") -> Completed:
    """Runs a statement in the database container, whose Unix socket requires no password."""
    return compose("exec", "-T", "db", "psql", "-U", role, "-d", "testshop", "-Atc", text, check=False)


def secret(name: str) -> str:
    """Returns the value of a generated secret."""
    value: str = secrets_command("--print", name).stdout
    return value.strip()


def secrets_command(*options: str) -> Completed:
    return compose("run", "--rm", "-T", "secrets", "secrets", *options)


@step
def secrets_do_not_leak() -> None:
    """No generated secret is in a log, an inspection, a command line, a layer of the image or the repository."""
    databases = ["db/superuser_password", "db/owner_password", "api/database_password", "api/redis_password"]
    names = [*databases, "api/jwt_secret", "demo/user_password", "demo/staff_password"]
    values = [secret(name) for name in names]
    expect(all(len(value) >= 40 for value in values) and len(set(values)) == len(values), "the secrets are distinct")
    text = compose("logs", "--no-color", profiles=PROFILES).stdout
    text += docker("history", "--no-trunc", IMAGE).stdout
    for name in containers(include_stopped=True):
        text += docker("inspect", name).stdout
    for name in containers():
        text += docker("top", name, "-eo", "pid,args").stdout
    for name, value in zip(names, values, strict=True):
        expect(value not in text, f"{name} leaks")
    committed = run("git", "grep", "-lE", "|".join(re.escape(value) for value in values), check=False).stdout
    expect(not committed, f"committed: {committed}")


@step
def secret_rotation() -> None:
    """A password is rotated on request and reaches its users; the JWT secret is rotated in three steps."""
    # these servers are not restarted here and would keep the old secrets
    compose("rm", "-s", "-f", "fleet", "balancer", "tls", profiles=["fleet", "tls"])
    before, user = secret("api/database_password"), register_and_log_in(api_client())
    secrets_command("--rotate", "api/database_password")
    expect(secret("api/database_password") != before, "the password did not change")
    compose("up", "-d", "--force-recreate", "migrate", "api")
    wait_until_healthy(*containers("api"))
    wait_until("the server uses the new password", lambda: user.reconnected().get("/api/me/").status == 200)

    def restart_after(jwt_step: str) -> None:
        secrets_command("--jwt", jwt_step)
        compose("restart", "-t", "30", "api")
        wait_until_healthy(*containers("api"))

    for jwt_step in ("add", "promote"):
        restart_after(jwt_step)
        expect(user.reconnected().get("/api/me/").status == 200, f"{jwt_step} invalidated a token")
    later = register_and_log_in(api_client())
    restart_after("remove")
    expect(user.reconnected().get("/api/me/").status == 401, "a token of the removed secret is accepted")
    expect(later.reconnected().get("/api/me/").status == 200, "a token of the current secret is rejected")


# -- profiles ----------------------------------------------------------------------------------------------------------


@step
def demo() -> None:
    """The profile demo creates products and two accounts, and can be started repeatedly."""
    for _ in range(2):
        compose("up", "-d", profiles=["demo"])
        for service in ("demo", "demo-staff"):
            wait_until_exited(containers(service, include_stopped=True)[0])
    for username, file in (("user1", "demo/user_password"), ("staff", "demo/staff_password")):
        client = log_in(api_client(), username, secret(file))
        expect(len(client.get("/api/products/").json()) == 1000, "the list has 1,000 products")
    expect(client.get("/api/me/").json()["is_staff"], "the account staff has staff rights")


def wait_until_exited(name: str) -> None:
    wait_until(f"{name} has exited", lambda: inspect(name)["State"]["Status"] == "exited")
    expect(inspect(name)["State"]["ExitCode"] == 0, docker("logs", name, check=False).stderr)


@step
def fleet() -> None:
    """A write through one of three servers is visible in the next list of every server and of the balancer."""
    compose("up", "-d", profiles=["fleet"])
    names = containers("fleet")
    expect(len(names) == 3, f"{names}")
    wait_until_healthy(*names)
    wait_until("the balancer has found the servers", lambda: balancer_client().get("/healthz").status == 200)
    staff = staff_client(balancer_client())
    servers = [staff.at(address(name), 8000) for name in names]
    expect(staff.post("/api/categories/", {"name": "Fleet"}).status in (201, 400), "a category")
    product = {"name": "initial", "price": 1, "category_name": "Fleet"}
    product_id = servers[0].post("/api/products/", product).json()["id"]
    began, writes = time.monotonic(), 0
    while time.monotonic() - began < 5:
        name = f"write {writes}"
        written = servers[writes % 3].call("PATCH", f"/api/products/{product_id}/", {"name": name})
        expect(written.status == 200, f"write: {written.status}")
        for reader in [*(reversed(servers) if writes % 2 else servers), staff]:
            listed = {found["id"]: found["name"] for found in reader.get("/api/products/").json()}
            expect(listed[product_id] == name, f"the list contained {listed[product_id]} after {name}")
        writes += 1
    measurements["writes, each visible at once on three servers and the balancer"] = str(writes)


@step
def rolling_restart() -> None:
    """Restarting the three servers one after the other under load loses no request."""
    with Load(staff_client(balancer_client()), threads=8) as load:
        for name in containers("fleet"):
            docker("restart", "-t", "30", name)
            wait_until_healthy(name)
            # the balancer checks the health of a server twice per second
            time.sleep(1.5)
        unexpected = load.unexpected()
    measurements["requests during a rolling restart; lost"] = f"{load.requests:,}; {sum(unexpected.values())}"
    expect(not unexpected, f"of {load.requests} requests: {unexpected}")


@step
def tls() -> None:
    """HTTPS serves the API with HSTS, HTTP redirects to it, and certificates are self-signed or read from files."""
    try:
        compose("up", "-d", profiles=["tls"])
        generated = secret("tls/fullchain.pem")
        expect_https_works(generated)
        with tempfile.TemporaryDirectory() as directory:
            ENVIRONMENT["TLS_DIR"] = f"{directory}/tls"
            first = generate_certificate(directory)
            compose("up", "-d", profiles=["tls"])
            expect_https_works(first)
            try:
                https_client(generated).get("/healthz")
                raise Failed("the self-signed certificate is still in use")
            except ssl.SSLCertVerificationError:
                pass
            second = generate_certificate(directory)
            docker("kill", "-s", "USR2", containers("tls")[0])
            wait_until("the renewed certificate", lambda: https_client(second).get("/healthz").status == 200)
            compose("rm", "-s", "-f", "tls", profiles=["tls"])
    finally:
        ENVIRONMENT.pop("TLS_DIR", None)


def generate_certificate(directory: str) -> str:
    """Writes a new certificate and its key into a subdirectory `tls`, and returns the certificate."""
    user, mount = f"{os.getuid()}:{os.getgid()}", f"{directory}:/secrets"
    options = ["--dir", "/secrets", "--tls-names", "127.0.0.1", "--rotate", "tls/privkey.pem"]
    docker("run", "--rm", "--user", user, "-v", mount, IMAGE, "secrets", *options)
    return Path(directory, "tls/fullchain.pem").read_text()


def expect_https_works(certificate: str) -> None:
    anonymous = https_client(certificate)
    wait_until("HTTPS is served", lambda: anonymous.reconnected().get("/healthz").status == 200)
    listed = register_and_log_in(anonymous).get("/api/products/")
    expect(listed.status == 200 and isinstance(listed.json(), list), f"list: {listed.status}")
    is_strict = "max-age=31536000" in listed.headers.get("Strict-Transport-Security", "")
    expect(is_strict, f"{listed.headers}")
    path = "/api/products/?page=2&search=a%20b"
    redirect = Client("127.0.0.1", PORTS["HTTP_PORT"]).get(path)
    location = f"https://127.0.0.1:{PORTS['HTTPS_PORT']}{path}"
    expect(redirect.status == 308 and redirect.headers["Location"] == location, f"{redirect.status} {redirect.headers}")
    expect("Strict-Transport-Security" not in redirect.headers, "HSTS is sent over HTTPS only")


# -- failures ----------------------------------------------------------------------------------------------------------


def unexpected_until_recovered(load: Load, failure: str) -> dict[str, int]:
    """Waits for a second without unexpected results, and returns those since the failure."""
    total: dict[str, int] = {}

    def add(counts: dict[str, int]) -> None:
        for kind, count in counts.items():
            total[kind] = total.get(kind, 0) + count

    def is_calm() -> bool:
        add(load.unexpected())
        requests = load.requests
        time.sleep(1)
        last = load.unexpected()
        add(last)
        return not last and load.requests > requests

    wait_until(f"recovery after: {failure}", is_calm)
    summary = ", ".join(f"{count} x {kind}" for kind, count in total.items())
    measurements[f"seen by clients: {failure}"] = summary or "nothing"
    return total


@step
def outages() -> None:
    """Clients see at most labelled stale lists and 503 while containers are stopped and killed under load."""
    with Load(staff_client(balancer_client())) as load:
        cache, database = containers("cache")[0], containers("db")[0]
        docker("kill", cache)
        time.sleep(2)
        docker("start", cache)
        unexpected = unexpected_until_recovered(load, "Redis killed for 2 s")
        expect(not unexpected, f"an outage of Redis is visible: {unexpected}")

        for name in containers("fleet"):
            docker("kill", name)
            server = " ".join(re.split("[-_]", name)[-2:])
            unexpected = unexpected_until_recovered(load, f"{server} killed")
            # the balancer repeats requests in flight; only a response that has begun can break off
            expect(sum(unexpected.values()) <= 4, unexpected)
            docker("start", name)
            wait_until_healthy(name)

        docker("stop", "-t", "20", database)
        time.sleep(2)
        docker("start", database)
        unexpected = unexpected_until_recovered(load, "PostgreSQL stopped for 2 s")
        expect(set(unexpected) <= {"stale", "503"} and unexpected.get("stale"), unexpected)
        docker("kill", database)
        docker("start", database)
        unexpected = unexpected_until_recovered(load, "PostgreSQL killed")
        expect(set(unexpected) <= {"stale", "503"}, unexpected)
    api_smoke_test(api_client())


@step
def exports_without_disk_space() -> None:
    """Where no file can be written, exports get 503 and everything else works."""
    staff = staff_client(api_client())
    for case, options in (("full", "size=4k,uid=65532"), ("read-only", "ro")):
        name = f"{PROJECT}-{case}"
        mounts = ["--tmpfs", f"/var/lib/testshop/exports:{options}", "-v", f"{PROJECT}_secrets-api:/secrets/api:ro"]
        settings = [part for entry in inspect(containers("api")[0])["Config"]["Env"] for part in ("-e", entry)]
        create = ["create", "--name", name, "--read-only", *mounts, *settings]
        docker(*create, "--network", f"{PROJECT}_front", IMAGE)
        try:
            docker("network", "connect", f"{PROJECT}_back", name)
            docker("start", name)
            expect_only_exports_fail(staff.at(address(name), 8000), case)
        finally:
            docker("rm", "-f", name)


def expect_only_exports_fail(client: Client, case: str) -> None:
    wait_until("the server listens", lambda: client.get("/healthz").status == 200)
    response = client.get("/api/products/export/")
    is_unavailable = response.json() == {"detail": "Service temporarily unavailable."}
    expect(response.status == 503 and is_unavailable, f"{case}: {response.status} {response.body[:200]!r}")
    expect(client.get("/api/products/").status == 200, "the list is served")


@step
def migrate_without_database() -> None:
    """`migrate` waits for a database up to its time limit, and then fails with a message."""
    database = containers("db")[0]
    docker("stop", database)
    try:
        began = time.monotonic()
        done = compose("run", "--rm", "--no-deps", "-T", "migrate", "migrate", check=False)
        seconds = time.monotonic() - began
        output = done.stderr + done.stdout
        expect(done.returncode == 1 and "waiting for the database" in output, f"{done.returncode} {output[-500:]}")
        expect(20 < seconds < 60, f"{seconds:.0f} s")
    finally:
        docker("start", database)
        wait_until_healthy(database)


# -- monitoring, load and pooler ---------------------------------------------------------------------------------------


@step
def observe() -> None:
    """Prometheus scrapes every server and the balancer, and its rules pass their tests."""
    compose("up", "-d", profiles=["fleet", "observe"])
    prometheus = Client("127.0.0.1", PORTS["PROMETHEUS_PORT"])
    expected = len(containers("api") + containers("fleet") + containers("balancer"))

    def all_targets_up() -> bool:
        series = prometheus.get("/api/v1/query?query=up").json()["data"]["result"]
        return sum(entry["value"][1] == "1" for entry in series) == expected

    wait_until(f"{expected} targets are up", all_targets_up)

    def all_rules_evaluated() -> bool:
        rules = prometheus.get("/api/v1/rules").json()["data"]["groups"][0]["rules"]
        return len(rules) >= 8 and all(rule["health"] == "ok" for rule in rules)

    wait_until("every rule was evaluated", all_rules_evaluated)
    prometheus_image = inspect(containers("prometheus")[0])["Config"]["Image"]
    promtool = ["--tmpfs", "/tmp", "-v", f"{ROOT}/deploy/prometheus:/rules:ro", "--entrypoint", "promtool"]
    docker("run", "--rm", *promtool, prometheus_image, "check", "config", "/rules/prometheus.yml")
    docker("run", "--rm", *promtool, prometheus_image, "test", "rules", "/rules/alerts_test.yml")


@step
def load() -> None:
    """k6 browses the shop within its thresholds."""
    ENVIRONMENT.update(LOAD_DURATION="10s", LOAD_RATE="100")
    done = compose("run", "--rm", "-T", "load", profiles=["load"], check=False)
    expect(done.returncode == 0, (done.stdout + done.stderr)[-3000:])


@step
def pooler() -> None:
    """Everything works through PgBouncer in transaction mode, prepared statements included."""
    compose("stop", "fleet", profiles=["fleet"])
    compose("build", "pooler", files=POOLER)
    compose("up", "-d", files=POOLER)
    wait_until_healthy(*containers("api"))
    wait_until("the server uses the pooler", lambda: api_client().get("/readyz").status == 200)
    wait_until("only the pooler is connected to PostgreSQL", only_pooler_is_connected)
    for _ in range(3):
        api_smoke_test(api_client())
    staff = staff_client(api_client())
    category = staff.get("/api/categories/").json()[0]
    with Load(staff, threads=8, path="/api/categories/") as reads:
        for number in range(200):
            expect_write_is_listed(staff, {"name": f"pooled {number}", "price": 1, "category_id": category["id"]})
        expect_imports_work(staff, category["name"])
        unexpected = reads.unexpected()
    expect(not unexpected, f"{unexpected}")
    measurements["requests through PgBouncer; failed"] = f"{reads.requests:,}; 0"
    compose("stop", "pooler", files=POOLER)
    compose("up", "-d", "--remove-orphans")
    wait_until_healthy(*containers("api"))


def only_pooler_is_connected() -> bool:
    """Returns whether every connection of the serving role comes from the pooler."""
    clients = "select string_agg(distinct client_addr::text, ' ') from pg_stat_activity where usename = 'testshop_api'"
    poolers = [address(name, "back") for name in containers("pooler")]
    return sql(clients).stdout.strip() in [*poolers, *[f"{host}/32" for host in poolers]]


def expect_write_is_listed(staff: Client, product: dict[str, Any]) -> None:
    created = staff.post("/api/products/", product)
    expect(created.status == 201, f"{created.status} {created.body!r}")
    listed = staff.get("/api/products/").json()
    expect(any(found["id"] == created.json()["id"] for found in listed), "the next list contains the product")


def expect_imports_work(staff: Client, category: str) -> None:
    """Imports an unchanged export, and new rows; an import is one transaction with a temporary table."""
    workbook = staff.get("/api/products/export/")
    headers = {"Content-Type": workbook.headers["Content-Type"]}
    response = staff.call("POST", "/api/products/import/", workbook.body, **headers)
    message = f"{response.status} {response.body[:300]!r}"
    expect(response.status == 200 and response.json()["unchanged"] >= 200, message)
    rows = "".join(f"imported {number},{category},1\r\n" for number in range(3))
    table = f"Name,Category,Price\r\n{rows}".encode()
    response = staff.call("POST", "/api/products/import/", table, **{"Content-Type": "text/csv"})
    message = f"{response.status} {response.body[:300]!r}"
    expect(response.status == 200 and response.json()["created"] == 3, message)


# -- command line ------------------------------------------------------------------------------------------------------


def run_step(function: Step) -> bool:
    """Runs a step, prints its result and returns whether it passed."""
    began = time.monotonic()
    try:
        function()
        result = "ok"
    except (Failed, subprocess.TimeoutExpired, OSError, http.client.HTTPException) as error:
        result = f"FAILED: {type(error).__name__} {error}"
    print(f"{function.__name__:<28} {time.monotonic() - began:5.1f} s  {result}", flush=True)
    return result == "ok"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help="steps to run after the first two (default: all)")
    parser.add_argument("--list", action="store_true", help="print the steps and exit")
    parser.add_argument("--release", action="store_true", help="build the image with the optimisation of a release")
    arguments = parser.parse_args()
    if arguments.release:
        build_arguments.clear()
    if arguments.list:
        print(*(f"{function.__name__:<28} {function.__doc__}" for function in STEPS), sep="\n")
        return 0
    if unknown := set(arguments.steps) - {function.__name__ for function in STEPS}:
        parser.error(f"unknown steps: {', '.join(sorted(unknown))}")
    if reason := missing_requirement():
        print(f"docker-test: SKIPPED, NOTHING WAS TESTED: {reason}", flush=True)
        return 0
    chosen = [
        function
        for number, function in enumerate(STEPS)
        if not arguments.steps or number < 2 or function.__name__ in arguments.steps
    ]
    passed = True
    try:
        for function in chosen:
            passed = run_step(function)
            if not passed:
                logs = compose("logs", "--no-color", "--tail=20", profiles=PROFILES, check=False).stdout
                print(logs[-6000:])
                break
    finally:
        remove_project()
    for name, value in measurements.items():
        print(f"  {name}: {value}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
