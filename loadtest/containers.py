#!/usr/bin/env python3
"""Measures what the container and the balancer cost: one binary outside and inside its container, and three servers
behind haproxy, on one PostgreSQL and one Redis, in interleaved rounds. All load goes to 127.0.0.1.

    loadtest/containers.py [--rounds N] [--seconds S]

Needs a container engine, wrk and target/release/testshop (`cargo build --release --bin testshop`), which is mounted into
the containers, so that all run the very same program. Prints medians, with the spread, and ratios to the first row.
"""
import argparse, re, statistics, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import compose
from compose import Caller, containers, docker, healthy, inspect, published, until

BINARY = ROOT / "target/release/testshop"
PRODUCTS = 100
OVERRIDE = """
services:
  api: {{volumes: ["{binary}:/usr/local/bin/testshop:ro"], environment: {{RUST_LOG: "info,access=off"}}}}
  fleet: {{volumes: ["{binary}:/usr/local/bin/testshop:ro"], environment: {{RUST_LOG: "info,access=off"}}}}
"""


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


def outside(port):
    return subprocess.Popen([BINARY, "serve"], env=settings(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def inside(port):
    """As confined as `api`, but on this machine's network: what is left is the container itself."""
    given = [part for name, value in settings(port).items() for part in ("-e", f"{name}={value}")]
    name = f"{compose.PROJECT}-inside"
    docker("run", "-d", "--name", name, "--network", "host", "--init", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true",
           "--tmpfs", "/var/lib/testshop/exports", "-v", f"{BINARY}:/usr/local/bin/testshop:ro", *given, compose.IMAGE)
    return name


def wrk(url, token, connections, seconds):
    done = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-H", f"Authorization: Bearer {token}", url + "/api/products/"],
                          capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in done or "Socket errors" in done:
        sys.exit(f"containers: {url}: {done}")
    value, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", done).groups()
    return float(re.search(r"Requests/sec:\s+([\d.]+)", done).group(1)), float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    arguments = parser.parse_args()
    lacking = compose.missing()
    if lacking:
        sys.exit(f"containers: {lacking}")
    process = container = None
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as override:
        override.write(OVERRIDE.format(binary=BINARY))
        override.flush()
        files = ["-f", "docker-compose.yml", "-f", override.name]
        try:
            compose.compose("up", "-d", files=files, profiles=["fleet"])
            healthy(*containers("api"), *containers("fleet"))
            compose.compose("exec", "-T", "api", "/usr/local/bin/testshop", "seed", "--products", str(PRODUCTS))
            token = compose.staff(published()).token
            ports = [compose.services.free_port() for _ in range(2)]
            process, container = outside(ports[0]), inside(ports[1])
            for port in ports:
                until("the server is ready", lambda: Caller("127.0.0.1", port).get("/readyz").status == 200)
            until("the balancer has found them", lambda: compose.balancer().get("/healthz").status == 200)
            targets = {
                "outside": f"http://127.0.0.1:{ports[0]}",
                "in a container": f"http://127.0.0.1:{ports[1]}",
                "in the project, by its published port": f"http://127.0.0.1:{compose.PORTS['SHOP_PORT']}",
                "three behind haproxy, by its published port": f"http://127.0.0.1:{compose.PORTS['FLEET_PORT']}",
            }
            rates, latencies = {name: [] for name in targets}, {name: [] for name in targets}
            for url in targets.values():
                wrk(url, token, 64, 1)
            for _ in range(arguments.rounds):
                for name, url in targets.items():
                    rates[name].append(wrk(url, token, 64, arguments.seconds)[0])
                for name, url in targets.items():
                    latencies[name].append(wrk(url, token, 4, 1)[1])
        finally:
            if container:
                docker("rm", "-f", container)
            if process:
                process.terminate()
                process.wait(40)
            compose.remove()
    print(f"list of {PRODUCTS} products, wrk -t1 -c64; median [least .. most] of {arguments.rounds} rounds; then the ratio to the first in the same round")
    for name, values in rates.items():
        ratios = [value / reference for value, reference in zip(values, rates["outside"])]
        print(f"  {name:<42} {statistics.median(values):>8,.0f} req/s [{min(values):,.0f} .. {max(values):,.0f}]   {statistics.median(ratios):.2f}"
              f"   p50 with 4 connections {statistics.median(latencies[name]):.2f} ms")


if __name__ == "__main__":
    main()
