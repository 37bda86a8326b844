"""A compose project of the checkout's own, on free ports, and clients of the shop in it."""
import contextlib, http.client, json, os, re, secrets, shutil, subprocess, sys, time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import services

ROOT = services.CHECKOUT
PROJECT = f"testshop-test-{os.getpid()}"
PROFILES = ["demo", "fleet", "observe", "load"]
PORTS = {name: services.free_port() for name in ("SHOP_PORT", "FLEET_PORT", "PROMETHEUS_PORT")}
IMAGE = "testshop:docker-test"
ENVIRONMENT = {
    **os.environ,
    # on this machine alone
    **{name: f"127.0.0.1:{port}" for name, port in PORTS.items() if name != "PROMETHEUS_PORT"},
    "PROMETHEUS_PORT": str(PORTS["PROMETHEUS_PORT"]),
    "SHOP_IMAGE": IMAGE,
    "DOCKER_BUILDKIT": os.environ.get("DOCKER_BUILDKIT", "0"),
}
PASSWORD = "a passphrase of " + secrets.token_hex(4)


class Failed(Exception):
    """What was promised does not hold."""


def check(holds, words):
    if not holds:
        raise Failed(words)


# -- running things ------------------------------------------------------------------------------------------

def run(*command, must=True, **more):
    more.setdefault("timeout", 1800)
    done = subprocess.run([str(c) for c in command], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, **more)
    if must and done.returncode:
        raise Failed(f"{' '.join(map(str, command))} exited with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done


def docker(*arguments, **more):
    return run("docker", *arguments, **more)


POOLER = ["-f", "docker-compose.yml", "-f", "deploy/pgbouncer/docker-compose.yml"]
COMPOSE = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]


def compose(*arguments, files=(), profiles=(), **more):
    chosen = [part for profile in profiles for part in ("--profile", profile)]
    return run(*COMPOSE, *files, "-p", PROJECT, "--env-file", ".env.example", *chosen, *arguments, **more)


def containers(service=None, everything=False):
    """Names of the project's containers, those of one service, in order."""
    filters = ["--filter", f"label=com.docker.compose.project={PROJECT}"]
    if service:
        filters += ["--filter", f"label=com.docker.compose.service={service}"]
    names = docker("ps", "--format", "{{.Names}}", *(["-a"] if everything else []), *filters).stdout.split()
    return sorted(names)


def inspect(name):
    return json.loads(docker("inspect", name).stdout)[0]


def address(name):
    """Where this machine reaches a container of the network `front`."""
    networks = inspect(name)["NetworkSettings"]["Networks"]
    return next(network["IPAddress"] for key, network in networks.items() if key.endswith("front"))


def until(what, holds, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if holds():
                return
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds} s in vain until {what}")
        time.sleep(0.1)


def healthy(*names):
    until(f"{', '.join(names)} are healthy", lambda: all(inspect(name)["State"].get("Health", {}).get("Status") == "healthy" for name in names))


# -- calling the shop ----------------------------------------------------------------------------------------

class Answer:
    def __init__(self, reply):
        self.status, self.headers, self.body = reply.status, reply.headers, reply.read()

    def json(self):
        return json.loads(self.body)


class Caller:
    """A client of one server, on one connection that it keeps as long as the server does."""

    def __init__(self, host, port, token=None):
        self.host, self.port, self.token, self.connection = host, port, token, None

    def at(self, host, port):
        return Caller(host, port, self.token)

    def again(self):
        """The same client on another connection: the server was restarted."""
        return self.at(self.host, self.port)

    def call(self, method, path, body=None, **headers):
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if body is not None and not isinstance(body, bytes):
            body, headers["Content-Type"] = json.dumps(body), "application/json"
        try:
            self.connection.request(method, path, body, headers)
            answer = Answer(self.connection.getresponse())
            if answer.headers.get("Connection", "").lower() == "close":
                self.connection.close()
                self.connection = None
            return answer
        except BaseException:
            self.connection.close()
            self.connection = None
            raise

    def get(self, path, **headers):
        return self.call("GET", path, **headers)

    def post(self, path, body, **headers):
        return self.call("POST", path, body, **headers)


def login(caller, username, password):
    answer = caller.post("/api/login/", {"username": username, "password": password})
    check(answer.status == 200, f"login of {username}: {answer.status} {answer.body[:200]}")
    return Caller(caller.host, caller.port, answer.json()["token"])


def published():
    return Caller("127.0.0.1", PORTS["SHOP_PORT"])


def balancer():
    return Caller("127.0.0.1", PORTS["FLEET_PORT"])


def staff(caller):
    arguments = ["create-admin", "--username=keeper", "--email=keeper@example.com", "--if-missing"]
    compose("exec", "-T", "api", "/usr/local/bin/testshop", *arguments, input=PASSWORD + "\n")
    return login(caller, "keeper", PASSWORD)


def remove():
    """Everything that the project made."""
    compose("down", "-v", "--remove-orphans", "-t", "5", files=POOLER, profiles=PROFILES, must=False)
    docker("image", "rm", IMAGE, must=False)


def missing():
    """What keeps this machine from running any of it."""
    if not shutil.which("docker") or docker("info", must=False).returncode:
        return "no container engine runs here"
    if run(*COMPOSE, "version", must=False).returncode:
        return "there is neither docker-compose nor docker compose"
    images = set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text() + (ROOT / "deploy/pgbouncer/Dockerfile").read_text(), re.M))
    images |= set(re.findall(r"image: (\S+)", compose("config", profiles=PROFILES).stdout)) - {IMAGE}
    for name in sorted(images):
        if docker("image", "inspect", name, must=False).returncode and docker("pull", "-q", name, must=False).returncode:
            return f"the image {name} is not here and cannot be fetched"
    return None
