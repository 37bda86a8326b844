"""A Docker Compose project with its own name and ports, and HTTP clients of the servers in it."""

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from services import CHECKOUT as ROOT
from services import free_port

PROJECT = f"testshop-test-{os.getpid()}"
PROFILES = ["demo", "fleet", "tls", "observe", "load"]
PORTS = {name: free_port() for name in ("SHOP_PORT", "FLEET_PORT", "HTTPS_PORT", "HTTP_PORT", "PROMETHEUS_PORT")}
IMAGE = "testshop:docker-test"
ENVIRONMENT = {
    **os.environ,
    # published on the loopback address only; docker-compose.yml contains that address for Prometheus
    **{name: f"127.0.0.1:{port}" for name, port in PORTS.items()},
    "PROMETHEUS_PORT": str(PORTS["PROMETHEUS_PORT"]),
    "SHOP_IMAGE": IMAGE,
    "DOCKER_BUILDKIT": os.environ.get("DOCKER_BUILDKIT", "0"),
}
PASSWORD = "a passphrase of " + secrets.token_hex(4)
POOLER = ["-f", "docker-compose.yml", "-f", "deploy/pgbouncer/docker-compose.yml"]
COMPOSE = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]

Completed = subprocess.CompletedProcess[str]


class Failed(Exception):
    """An expectation that does not hold, or a command that failed."""


def expect(condition: object, message: object) -> None:
    """Raises `Failed` unless the condition holds."""
    if not condition:
        raise Failed(message)


# -- commands ----------------------------------------------------------------------------------------------------------


def run(*command: str | Path, check: bool = True, **options: Any) -> Completed:
    """Runs a command in the root of the repository; with `check` a failure raises `Failed`."""
    options.setdefault("timeout", 1800)
    text = [str(part) for part in command]
    done = subprocess.run(text, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, **options)
    if check and done.returncode:
        output = (done.stdout + done.stderr)[-3000:]
        raise Failed(f"{' '.join(text)} exited with {done.returncode}:\n{output}")
    return done


def docker(*arguments: str, **options: Any) -> Completed:
    return run("docker", *arguments, **options)


def compose(*arguments: str, files: Sequence[str] = (), profiles: Sequence[str] = (), **options: Any) -> Completed:
    """Runs a command of Docker Compose on the project."""
    profile_options = [part for profile in profiles for part in ("--profile", profile)]
    project = ["-p", PROJECT, "--env-file", ".env.example"]
    return run(*COMPOSE, *files, *project, *profile_options, *arguments, **options)


def containers(service: str | None = None, include_stopped: bool = False) -> list[str]:
    """Returns the sorted names of the project's containers, or of those of one service."""
    filters = ["--filter", f"label=com.docker.compose.project={PROJECT}"]
    if service:
        filters += ["--filter", f"label=com.docker.compose.service={service}"]
    stopped = ["-a"] if include_stopped else []
    return sorted(docker("ps", "--format", "{{.Names}}", *stopped, *filters).stdout.split())


def inspect(name: str) -> dict[str, Any]:
    """Returns what `docker inspect` prints about a container or an image."""
    details: dict[str, Any] = json.loads(docker("inspect", name).stdout)[0]
    return details


def address(name: str, network: str = "front") -> str:
    """Returns the IP address of a container in a network of the project."""
    networks = inspect(name)["NetworkSettings"]["Networks"]
    found: str = next(entry["IPAddress"] for key, entry in networks.items() if key.endswith(network))
    return found


def wait_until(condition: str, holds: Callable[[], object], seconds: float = 60) -> None:
    """Waits until `holds()` is true; connection errors count as false."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if holds():
                return
        if time.monotonic() > deadline:
            raise Failed(f"{condition}: not within {seconds} s")
        time.sleep(0.1)


def health(name: str) -> str | None:
    status: str | None = inspect(name)["State"].get("Health", {}).get("Status")
    return status


def wait_until_healthy(*names: str) -> None:
    wait_until(f"{', '.join(names)} are healthy", lambda: all(health(name) == "healthy" for name in names))


# -- HTTP clients ------------------------------------------------------------------------------------------------------


class Response:
    """A response whose body was read."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A client of one server, on one persistent connection; over TLS if there is a context."""

    def __init__(self, host: str, port: int, token: str | None = None, context: ssl.SSLContext | None = None) -> None:
        self.host, self.port, self.token, self.context = host, port, token, context
        self.connection: http.client.HTTPConnection | None = None

    def at(self, host: str, port: int) -> "Client":
        """Returns a client of another server with the same token."""
        return Client(host, port, self.token, self.context)

    def reconnected(self) -> "Client":
        """Returns the same client on a new connection."""
        return self.at(self.host, self.port)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Response:
        """Sends a request; a body that is not bytes is sent as JSON."""
        if self.connection is None and self.context:
            self.connection = http.client.HTTPSConnection(self.host, self.port, timeout=30, context=self.context)
        elif self.connection is None:
            self.connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if body is not None and not isinstance(body, bytes):
            body, headers["Content-Type"] = json.dumps(body), "application/json"
        try:
            self.connection.request(method, path, body, headers)
            response = Response(self.connection.getresponse())
        except BaseException:
            self.disconnect()
            raise
        if response.headers.get("Connection", "").lower() == "close":
            self.disconnect()
        return response

    def disconnect(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def get(self, path: str, **headers: str) -> Response:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Response:
        return self.call("POST", path, body, **headers)


def log_in(client: Client, username: str, password: str) -> Client:
    response = client.post("/api/login/", {"username": username, "password": password})
    expect(response.status == 200, f"login of {username}: {response.status} {response.body[:200]!r}")
    return Client(client.host, client.port, response.json()["token"], client.context)


def api_client() -> Client:
    """Returns a client of the server `api`, through its published port."""
    return Client("127.0.0.1", PORTS["SHOP_PORT"])


def balancer_client() -> Client:
    """Returns a client of the load balancer, through its published port."""
    return Client("127.0.0.1", PORTS["FLEET_PORT"])


def https_client(certificate: str) -> Client:
    """Returns a client of the profile `tls` that trusts only this certificate (PEM)."""
    return Client("127.0.0.1", PORTS["HTTPS_PORT"], context=ssl.create_default_context(cadata=certificate))


def staff_client(client: Client) -> Client:
    """Creates a staff account when it is missing, and logs in."""
    arguments = ["create-admin", "--username=keeper", "--email=keeper@example.com", "--if-missing"]
    compose("exec", "-T", "api", "/usr/local/bin/testshop", *arguments, input=PASSWORD + "\n")
    return log_in(client, "keeper", PASSWORD)


# -- the project as a whole --------------------------------------------------------------------------------------------


def remove_project() -> None:
    """Removes the project's containers, volumes, networks and image."""
    down = ["down", "-v", "--remove-orphans", "-t", "5"]
    compose(*down, files=POOLER, profiles=PROFILES, check=False)
    docker("image", "rm", IMAGE, check=False)


def missing_requirement() -> str | None:
    """Returns why the project cannot run on this machine, or `None`."""
    if not shutil.which("docker") or docker("info", check=False).returncode:
        return "no container engine is running"
    if run(*COMPOSE, "version", check=False).returncode:
        return "neither docker-compose nor docker compose is installed"
    dockerfiles = [ROOT / "Dockerfile", ROOT / "deploy/pgbouncer/Dockerfile"]
    images = {name for file in dockerfiles for name in re.findall(r"^FROM (\S+)", file.read_text(), re.M)}
    images |= set(re.findall(r"image: (\S+)", compose("config", profiles=PROFILES).stdout)) - {IMAGE}
    for name in sorted(images):
        is_present = docker("image", "inspect", name, check=False).returncode == 0
        if is_present or docker("pull", "-q", name, check=False).returncode == 0:
            continue
        if not use_local_tag(name):
            return f"the image {name} is missing and cannot be pulled"
    return None


def use_local_tag(name: str) -> bool:
    """Replaces an image of docker-compose.yml by one of the same repository that is present, if there is one."""
    settings = re.findall(r"image: \$\{(\w+):-(\S+)\}", (ROOT / "docker-compose.yml").read_text())
    variable = {image: variable for variable, image in settings}.get(name)
    repository = re.sub(r"(@.*|:[^:/]*)$", "", name)
    local = docker("image", "ls", "--filter", "dangling=false", "--format", "{{.Repository}}:{{.Tag}}", repository)
    if not variable or not local.stdout.strip():
        return False
    ENVIRONMENT[variable] = local.stdout.split()[0]
    print(f"docker-test: tests {ENVIRONMENT[variable]} in place of {name}", flush=True)
    return True
