"""What a container and a balancer cost: one binary outside and inside its container, and three servers behind haproxy; and the start.

All on the PostgreSQL and the Redis of one compose project. The very same binary is mounted into the containers; nobody writes an access log. Needs a
container engine with compose, and its images.
"""
import subprocess, tempfile, time
from contextlib import nullcontext
from types import SimpleNamespace

import compose
from compose import Caller, containers, docker, healthy, inspect, published, until
from load import interleave, ratios, values, wrk
from rows import LeftOut, row
from servers import SHOP

PRODUCTS, PATH = 100, "/api/products/"
OVERRIDE = """
services:
  api: {{volumes: ["{binary}:/usr/local/bin/testshop:ro"], environment: {{RUST_LOG: "info,access=off"}}}}
  fleet: {{volumes: ["{binary}:/usr/local/bin/testshop:ro"], environment: {{RUST_LOG: "info,access=off"}}}}
"""


def run(bench):
    if lacking := compose.missing():
        raise LeftOut(lacking)
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as override:
        override.write(OVERRIDE.format(binary=SHOP))
        override.flush()
        try:
            yield from measured(bench, ["-f", "docker-compose.yml", "-f", override.name])
        finally:
            docker("rm", "-f", f"{compose.PROJECT}-inside", must=False)
            compose.remove()


def measured(bench, files):
    compose.compose("build", files=files)
    began = time.monotonic()
    compose.compose("up", "-d", files=files)
    healthy(*containers("api"))
    yield row("containers.up", "from `docker compose up` to healthy, images built", "s", [time.monotonic() - began])
    compose.compose("up", "-d", files=files, profiles=["fleet"])
    healthy(*containers("fleet"))
    compose.compose("exec", "-T", "api", "/usr/local/bin/testshop", "seed", "--products", str(PRODUCTS))
    headers = {"Authorization": f"Bearer {compose.staff(published()).token}"}
    until("the balancer has found them", lambda: compose.balancer().get("/healthz").status == 200)
    alone, confined = (compose.services.free_port() for _ in range(2))
    inside(confined)
    outside = subprocess.Popen([SHOP, "serve"], env=settings(alone), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for port in (alone, confined):
            until("the server is ready", lambda: Caller("127.0.0.1", port).get("/readyz").status == 200)
        ports = {"outside": alone, "inside": confined, "published": compose.PORTS["SHOP_PORT"], "fleet": compose.PORTS["FLEET_PORT"]}
        servers = {name: SimpleNamespace(name=name, url=f"http://127.0.0.1:{port}", headers=headers) for name, port in ports.items()}
        rates = interleave(bench.rounds, {name: lambda server=server: wrk(server, PATH, seconds=bench.seconds, around=nullcontext) for name, server in servers.items()})
        waits = interleave(bench.rounds, {name: lambda server=server: wrk(server, PATH, connections=4, seconds=1, around=nullcontext) for name, server in servers.items()})
    finally:
        outside.terminate()
        outside.wait(40)
    words = {"outside": "outside of any container", "inside": "in a container, on this machine's network", "published": "in its project, by the published port",
             "fleet": "three behind haproxy, by the published port"}
    for name, what in words.items():
        yield row(f"containers.rate.{name}", f"list of {PRODUCTS}, {what}", "req/s", values(rates[name], "rate"), reference=name == "outside")
        if name != "outside":
            yield row(f"containers.ratio.{name}", "  ratio to outside", "x", ratios(values(rates[name], "rate"), values(rates["outside"], "rate")))
        yield row(f"containers.wait.{name}", "  median with 4 connections", "ms", values(waits[name], "p50"))


def address(name, network):
    found = inspect(name)["NetworkSettings"]["Networks"]
    return next(entry["IPAddress"] for key, entry in found.items() if key.endswith(network))


def secret(name):
    return compose.compose("run", "--rm", "-T", "secrets", "secrets", "--print", name).stdout.strip()


def settings(port):
    """Of a server on this machine's network, on the containers' PostgreSQL and Redis."""
    database = secret("api/database_url").replace("@db:", f"@{address(containers('db')[0], 'back')}:")
    redis = secret("api/redis_url").replace("@cache:", f"@{address(containers('cache')[0], 'back')}:")
    return {"DATABASE_URL": database, "REDIS_URL": redis, "JWT_SECRET": secret("api/jwt_secret"), "RUST_LOG": "info,access=off",
            "LISTEN_ADDR": f"127.0.0.1:{port}", "ADMIN_ADDR": "127.0.0.1:0"}


def inside(port):
    """As confined as `api`, but on this machine's network: what is left is the container itself."""
    given = [part for name, value in settings(port).items() for part in ("-e", f"{name}={value}")]
    docker("run", "-d", "--name", f"{compose.PROJECT}-inside", "--network", "host", "--init", "--read-only", "--cap-drop", "ALL", "--security-opt",
           "no-new-privileges:true", "--tmpfs", "/var/lib/testshop/exports", "-v", f"{SHOP}:/usr/local/bin/testshop:ro", *given, compose.IMAGE)
