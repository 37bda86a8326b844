"""The cost of a container and of a load balancer, and the time to start.

The same binary runs outside and inside a container, and as three servers behind haproxy; all use the PostgreSQL and
the Redis of one compose project, without an access log. Needs a container engine with compose, and its images.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import compose
from compose import Client, address, containers, docker, wait_until, wait_until_healthy
from load import Sample, column, interleave, ratios, wrk
from options import Options
from rows import Row, Skipped, row
from servers import TESTSHOP
from services import free_port

PRODUCTS, PATH = 100, "/api/products/"
CONTAINER = f"{compose.PROJECT}-inside"
LOG = "info,access=off"
OVERRIDE = f"""
services:
  api: {{volumes: ["{TESTSHOP}:/usr/local/bin/testshop:ro"], environment: {{RUST_LOG: "{LOG}"}}}}
  fleet: {{volumes: ["{TESTSHOP}:/usr/local/bin/testshop:ro"], environment: {{RUST_LOG: "{LOG}"}}}}
"""
TITLES = {
    "native": "outside containers",
    "host_network": "in a container, host network",
    "published_port": "compose project, published port",
    "fleet": "three servers behind haproxy, published port",
}


def run(options: Options) -> Iterator[Row]:
    if missing := compose.missing_requirement():
        raise Skipped(missing)
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as override:
        override.write(OVERRIDE)
        override.flush()
        try:
            yield from measure(options, ["-f", "docker-compose.yml", "-f", override.name])
        finally:
            docker("rm", "-f", CONTAINER, check=False)
            compose.remove_project()


def measure(options: Options, files: Sequence[str]) -> Iterator[Row]:
    compose.compose("build", files=files)
    started = time.monotonic()
    compose.compose("up", "-d", files=files)
    wait_until_healthy(*containers("api"))
    title = "`docker compose up` until healthy, images built"
    yield row("containers.up", title, "s", [time.monotonic() - started])
    compose.compose("up", "-d", files=files, profiles=["fleet"])
    wait_until_healthy(*containers("fleet"))
    compose.compose("exec", "-T", "api", "/usr/local/bin/testshop", "seed", "--products", str(PRODUCTS))
    wait_until("the load balancer finds a server", lambda: compose.balancer_client().get("/healthz").status == 200)
    rates, latencies = measure_servers(options)
    native = column(rates["native"], "rate")
    for name, title in TITLES.items():
        rate = column(rates[name], "rate")
        what = f"list of {PRODUCTS}, {title}"
        yield row(f"containers.rate.{name}", what, "req/s", rate, reference=name == "native")
        if name != "native":
            yield row(f"containers.ratio.{name}", "  ratio to outside containers", "x", ratios(rate, native))
        latency = column(latencies[name], "p50")
        yield row(f"containers.latency.{name}", "  median latency, 4 connections", "ms", latency)


def measure_servers(options: Options) -> tuple[dict[str, list[Sample]], dict[str, list[Sample]]]:
    """wrk's reports by server: at 64 and at 4 connections."""
    headers = {"Authorization": f"Bearer {compose.staff_client(compose.api_client()).token}"}
    native_port, container_port = (free_port() for _ in range(2))
    run_container(container_port)
    null = subprocess.DEVNULL
    native = subprocess.Popen([TESTSHOP, "serve"], env=settings(native_port), stdout=null, stderr=null)
    try:
        for port in (native_port, container_port):
            wait_until("the server is ready", partial(is_ready, port))
        ports = {
            "native": native_port,
            "host_network": container_port,
            "published_port": compose.PORTS["SHOP_PORT"],
            "fleet": compose.PORTS["FLEET_PORT"],
        }
        servers = [
            SimpleNamespace(name=name, url=f"http://127.0.0.1:{port}", headers=headers) for name, port in ports.items()
        ]

        def measures(connections: int, seconds: int) -> dict[str, partial[Sample]]:
            return {
                server.name: partial(wrk, server, PATH, connections, seconds, context=nullcontext) for server in servers
            }

        rates = interleave(options.rounds, measures(64, options.seconds))
        return rates, interleave(options.rounds, measures(4, 1))
    finally:
        native.terminate()
        native.wait(40)


def is_ready(port: int) -> bool:
    return Client("127.0.0.1", port).get("/readyz").status == 200


def secret(name: str) -> str:
    return compose.compose("run", "--rm", "-T", "secrets", "secrets", "--print", name).stdout.strip()


def settings(port: int) -> dict[str, str]:
    """Settings of a server on the host network that uses the PostgreSQL and Redis of the project."""
    database = secret("api/database_url").replace("@db:", f"@{address(containers('db')[0], 'back')}:")
    redis = secret("api/redis_url").replace("@cache:", f"@{address(containers('cache')[0], 'back')}:")
    return {
        "DATABASE_URL": database,
        "REDIS_URL": redis,
        "JWT_SECRET": secret("api/jwt_secret"),
        "RUST_LOG": LOG,
        "LISTEN_ADDR": f"127.0.0.1:{port}",
        "ADMIN_ADDR": "127.0.0.1:0",
    }


def run_container(port: int) -> None:
    """Starts a container with the restrictions of `api`, but on the host network: only the container's cost remains."""
    env = [part for name, value in settings(port).items() for part in ("-e", f"{name}={value}")]
    command = ["run", "-d", "--name", CONTAINER, "--network", "host", "--init", "--read-only", "--cap-drop", "ALL"]
    command += ["--security-opt", "no-new-privileges:true", "--tmpfs", "/var/lib/testshop/exports"]
    docker(*command, "-v", f"{TESTSHOP}:/usr/local/bin/testshop:ro", *env, compose.IMAGE)
