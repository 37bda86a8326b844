"""The processes that are measured: the shop, the limit of its stack, the peers; and the PostgreSQL and Redis they share."""
import http.client, json, os, re, signal, socket, subprocess, sys, tempfile, threading, time, urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
SHOP = ROOT / "target/release/testshop"
EXAMPLES = ROOT / "target/release/examples"
PEERS = ["axum", "fastify", "fastapi", "django"]
PASSWORD = "a password for load tests"
SECRET = "a secret for load tests: more than 32 bytes"
ITERATIONS = 1000  # of PBKDF2, except where hashing is what is measured
JSON = {"Content-Type": "application/json"}
sys.path.insert(0, str(ROOT / "scripts"))
from services import free_port  # noqa: E402


# -- PostgreSQL and Redis ------------------------------------------------------------------------------------

def address(database):
    return os.environ["DATABASE_URL"].rsplit("/", 1)[0] + "/" + database


def psql(database, text, *more):
    command = [os.path.join(os.environ.get("PG_BIN", ""), "psql"), "-qXAt", address(database), *more, "-c", text]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def pgbench(database, script, connections=1, seconds=2):
    """Transactions a second of a script, statements prepared."""
    command = [os.path.join(os.environ.get("PG_BIN", ""), "pgbench"), "-n", "-M", "prepared", "-c", str(connections), "-T", str(seconds), "-f", str(script), address(database)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(re.search(r"tps = ([\d.]+)", out).group(1))


def redis(*words):
    """One command, in the protocol's own words: no client is needed for that."""
    url = urlsplit(os.environ["REDIS_URL"])
    with socket.create_connection((url.hostname, url.port), timeout=5) as link:
        def call(*parts):
            link.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in (str(p).encode() for p in parts)))
            head = stream.readline()
            return stream.read(int(head[1:]) + 2).decode() if head[:1] == b"$" else head.decode()
        stream = link.makefile("rb")
        if url.password:
            call("AUTH", *([url.username] if url.username else []), url.password)
        return call(*words)


def redis_commands():
    return int(re.search(r"total_commands_processed:(\d+)", redis("INFO", "stats")).group(1))


def environment(database, **more):
    return {**os.environ, "DATABASE_URL": address(database), "JWT_SECRET": SECRET, "PBKDF2_ITERATIONS": str(ITERATIONS), "LISTEN_ADDR": "127.0.0.1:0",
            "ADMIN_ADDR": "127.0.0.1:0", "RATE_LIMIT": "off", "REDIS_PREFIX": database, **{name: str(value) for name, value in more.items()}}


def catalogue(products):
    """A database with so many demo products, and one staff account; made once."""
    name = f"load_{products}"
    if not psql("testshop", f"select 1 from pg_database where datname = '{name}'"):
        psql("testshop", f"create database {name}")
        run = lambda *arguments, **more: subprocess.run([SHOP, *arguments], env=environment(name), check=True, capture_output=True, text=True, **more)
        run("migrate")
        run("seed", "--products", "0", "--users", "1", input=PASSWORD)
        run("seed", "--products", str(products))
        psql(name, "update users set is_staff = true")
        psql(name, "vacuum analyze")
    return name


def new_version(database):
    """What stood in any cache is out of date now."""
    psql(database, "update versions set version = version + 1, token = gen_random_uuid() where name = 'catalogue'")


class PostgresCpu:
    """Seconds of CPU that PostgreSQL has used, by all its processes."""

    def __init__(self):
        self.parent = parent_of(psql("testshop", "select pid from pg_stat_activity where backend_type = 'checkpointer'"))

    def seconds(self):
        return sum(cpu_seconds(pid, 15 if pid == self.parent else 13) for pid in family(self.parent))


# -- processes -----------------------------------------------------------------------------------------------

def fields_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()


def parent_of(pid):
    return int(fields_of(pid)[1])


def family(pid):
    """A process and all that descend from it."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parents[int(name)] = parent_of(name)
            except (OSError, IndexError):
                pass
    found, grown = {int(pid)}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


def cpu_seconds(pid, upto=13):
    """Of a process, outside and inside the kernel; upto=12: outside alone; upto=15: with the children that have ended."""
    try:
        fields = fields_of(pid)
    except OSError:
        return 0
    return sum(int(field) for field in fields[11:upto]) / os.sysconf("SC_CLK_TCK")


class Server:
    """Processes that serve on one address, ended at the end."""

    def __init__(self, name, command, env, url=None):
        self.name, self.began, self.lines = name, time.monotonic(), {}
        self.process = subprocess.Popen([str(part) for part in command], env=env, stdout=subprocess.DEVNULL if url else subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True, process_group=0)
        if url:
            self.url = url
            return
        for line in self.process.stdout:
            found = re.match(r"(.*) on (http://\S+)", line)
            if found:
                self.lines[found.group(1)] = found.group(2)
            if self.enough(self.lines):
                break
        else:
            sys.exit(f"bench: {name} did not start")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.url = self.lines["listening"]

    @staticmethod
    def enough(lines):
        return "listening" in lines

    def pids(self):
        return family(self.process.pid)

    def cpu(self):
        """Seconds so far, all and those outside the kernel."""
        pids = self.pids()
        return {"cpu": sum(cpu_seconds(pid) for pid in pids), "user": sum(cpu_seconds(pid, 12) for pid in pids)}

    def memory(self, what="VmRSS"):
        """MiB of all its processes."""
        total = 0
        for pid in self.pids():
            total += int(re.search(rf"{what}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1))
        return total / 1024

    def forget_peak(self):
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def end(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    # -- as a client

    def connect(self):
        parts = urlsplit(self.url)
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=600)

    def request(self, method, path, body=None, headers=None):
        """One request on a connection of its own: status, headers, body."""
        connection = self.connect()
        connection.request(method, path, body=json.dumps(body) if isinstance(body, dict) else body, headers={**(JSON if body is not None else {}), **(headers or {})})
        reply = connection.getresponse()
        return reply, reply.read()

    def login(self):
        reply, body = self.request("POST", "/api/login/", {"username": "user1", "password": PASSWORD})
        assert reply.status == 200, (self.name, reply.status, body)
        self.headers = {"Authorization": f"Bearer {json.loads(body)['token']}"}
        return self

    def get(self, path, **headers):
        reply, body = self.request("GET", path, headers={**self.headers, **headers})
        assert reply.status in (200, 304), (self.name, path, reply.status, body[:300])
        return reply, body

    def metrics(self):
        """Each counter and gauge without labels; only the shop tells any."""
        return {}


class Shop(Server):
    @staticmethod
    def enough(lines):
        return "health and metrics" in lines

    def metrics(self):
        text = urllib.request.urlopen(self.lines["health and metrics"] + "/metrics").read().decode()
        return {name: float(value) for name, value in re.findall(r"^testshop_(\w+) (\S+)$", text, re.M)}


def shop(database, **settings):
    return Shop("TestShop", [SHOP, "serve"], environment(database, **settings)).login()


def limit(body):
    """A bare hyper server that answers everything with these bytes."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        server = Server("limit", [EXAMPLES / "limit", "127.0.0.1:0", file.name], os.environ)
    server.headers = {}
    return server


def peer(name, database, **settings):
    port = free_port()
    server = Server(name, [ROOT / "loadtest/peers" / name / "run"], environment(database, PORT=port, **settings), f"http://127.0.0.1:{port}")
    deadline = time.monotonic() + 60
    while True:
        try:
            return server.login()
        except OSError:
            if time.monotonic() > deadline or server.process.poll() is not None:
                sys.exit(f"bench: the peer {name} did not start; loadtest/peers/{name}/run tells why")
            time.sleep(0.1)


@contextmanager
def serving(*servers):
    """Ends them, whatever happens."""
    try:
        yield servers if len(servers) > 1 else servers[0]
    finally:
        for server in servers:
            server.end()
