#!/usr/bin/env python3
"""Runs Dockerfile, docker-compose.yml and deploy/ as they are, and looks at what they promise: a
client's way through the API over the published port, confinement, secrets, outages, a rolling restart that loses no request, a pooler.

    docker_test.py [STEP...]    all steps, or those named (`--list` tells which) after the first two

Everything runs as a compose project of its own on free ports of this machine, and is removed at the end. Without an
engine, or without the images that the files name, it is skipped, and says so loudly.
"""

import http.client, io, json, re, secrets, subprocess, sys, tarfile, threading, time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from compose import (
    ENVIRONMENT,
    IMAGE,
    PASSWORD,
    POOLER,
    PORTS,
    PROFILES,
    PROJECT,
    ROOT,
    Caller,
    Failed,
    address,
    balancer,
    check,
    compose,
    containers,
    docker,
    healthy,
    inspect,
    login,
    missing,
    published,
    remove,
    run,
    staff,
    until,
)

IMAGE_BYTES_OVER_BASE = 40_000_000
SECONDS_TO_HEALTHY = 15

STEPS = []
figures = {}


def step(function):
    STEPS.append(function)
    return function


class Load:
    """Threads that ask until they are told to stop, and remember every answer that was none, or not the usual one."""

    def __init__(self, caller, threads=4, path="/api/products/"):
        self.caller, self.path, self.stopping = caller, path, threading.Event()
        self.answers, self.odd, self.threads = 0, [], []
        self.lock = threading.Lock()
        for _ in range(threads):
            self.threads.append(threading.Thread(target=self.ask, daemon=True))

    def ask(self):
        caller = self.caller.at(self.caller.host, self.caller.port)
        while not self.stopping.is_set():
            try:
                answer = caller.get(self.path)
                odd = None if answer.status == 200 else str(answer.status)
                if "detail=stale" in answer.headers.get("Cache-Status", ""):
                    odd = "stale"
            except (OSError, http.client.HTTPException) as error:
                odd = f"{type(error).__name__}"
            with self.lock:
                self.answers += 1
                if odd:
                    self.odd.append(odd)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        until("there is load", lambda: self.answers > 50)
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)

    def seen(self):
        """What was odd since the last time, counted."""
        with self.lock:
            odd, self.odd = self.odd, []
        return {kind: odd.count(kind) for kind in sorted(set(odd))}


# -- the steps -----------------------------------------------------------------------------------------------


@step
def image():
    """The image is small, runs as nobody, holds the program and nothing else, and names its wrong settings."""
    began = time.monotonic()
    compose("build", "secrets")
    figures["build of the image, layers cached or not"] = f"{time.monotonic() - began:.0f} s"
    told = json.loads(docker("image", "inspect", IMAGE).stdout)[0]
    config = told["Config"]
    check(config["User"] == "65532:65532", config["User"])
    check(config["Entrypoint"] == ["/usr/local/bin/testshop"] and config["Cmd"] == ["serve"], config)
    check(config["Healthcheck"]["Test"] == ["CMD", "/usr/local/bin/testshop", "healthcheck"], config["Healthcheck"])
    check(config["StopSignal"] == "SIGTERM" and "org.opencontainers.image.title" in config["Labels"], config)
    base = json.loads(
        docker("image", "inspect", re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.M)[-1]).stdout
    )[0]
    over = told["Size"] - base["Size"]
    figures["image over its base"] = f"{over / 1e6:.1f} MB"
    check(over <= IMAGE_BYTES_OVER_BASE, f"the image is {over} bytes over its base")
    added = sorted(files_of(IMAGE) - files_of(base["Id"]))
    check([name for name in added if not name.endswith("/")] == ["usr/local/bin/testshop"], added)

    done = docker("run", "--rm", IMAGE, must=False)
    check(
        done.returncode == 2 and "DATABASE_URL is required" in done.stderr and "JWT_SECRET is required" in done.stderr,
        done,
    )
    done = docker(
        "run",
        "--rm",
        "-e",
        "JWT_SECRET=short",
        "-e",
        "DATABASE_URL=postgres://db/x",
        "-e",
        "LISTEN_ADDR=here",
        IMAGE,
        must=False,
    )
    check(done.returncode == 2 and "has 5 bytes" in done.stderr and "LISTEN_ADDR" in done.stderr, done)


def files_of(image):
    """Every path in every layer; a folder ends with a slash."""
    names = set()
    saved = subprocess.run(["docker", "save", image], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as outer:
        manifest = json.load(outer.extractfile("manifest.json"))
        for layer in manifest[0]["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(layer)) as inner:
                names |= {member.name.removeprefix("./") + ("/" if member.isdir() else "") for member in inner}
    return names


@step
def up():
    """`up` ends with everything healthy, in time, and once more changes nothing."""
    began = time.monotonic()
    compose("up", "-d")
    healthy(*containers("api"))
    seconds = time.monotonic() - began
    figures["compose up to healthy, images built"] = f"{seconds:.1f} s"
    check(seconds <= SECONDS_TO_HEALTHY, f"{seconds:.1f} s until healthy")

    def running():
        return [(name, inspect(name)["Id"], inspect(name)["State"]["StartedAt"]) for name in containers()]

    before = running()
    compose("up", "-d")
    check(running() == before, f"{before} became {running()}")
    for service in ("secrets", "migrate"):
        state = inspect(containers(service, everything=True)[0])["State"]
        check(state["Status"] == "exited" and state["ExitCode"] == 0, f"{service}: {state}")


@step
def api():
    """What a client does, over the published port."""
    walk(published())


def walk(anyone):
    name = "ann" + secrets.token_hex(4)
    account = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    check(anyone.get("/readyz").json() == {"database": "ok", "cache": "ok"}, anyone.get("/readyz").body)
    check(anyone.get("/api/products/").status == 401, "the list needs a login")
    answer = anyone.post("/api/register/", account)
    check(answer.status == 201, f"register: {answer.status} {answer.body}")
    user, keeper = login(anyone, name, PASSWORD), staff(anyone)
    check(user.post("/api/categories/", {"name": "x"}).status == 403, "a user is no staff")
    category, product = "Kitchen" + secrets.token_hex(4), "Kettle" + secrets.token_hex(4)
    check(keeper.post("/api/categories/", {"name": category}).status == 201, "a category")
    made = keeper.post(
        "/api/products/", {"name": product, "price": "19.99", "category_name": category, "tags": ["new"]}
    )
    check(made.status == 201, f"create: {made.status} {made.body}")
    listed = user.get("/api/products/")
    check(any(found["name"] == product for found in listed.json()), "what was created is in the very next list")
    check(
        user.get("/api/products/", **{"If-None-Match": listed.headers["ETag"]}).status == 304,
        "an unchanged list is a 304",
    )
    export = user.get("/api/products/export/")
    check(export.status == 200 and export.body[:2] == b"PK", f"export: {export.status} {export.body[:100]}")
    gone = keeper.call("DELETE", made.headers["Location"])
    check(gone.status == 204, f"delete: {gone.status}")
    check(not any(found["name"] == product for found in user.get("/api/products/").json()), "what was deleted is gone")
    check(
        user.call("POST", "/api/logout/").status == 204 and user.get("/api/me/").status == 401, "a logout holds at once"
    )


@step
def confinement():
    """No container has a right that it does not need, and the shop's sees no secret but its own."""
    compose("up", "-d", profiles=["fleet", "observe"])
    for name in containers():
        told = inspect(name)
        service, host = told["Config"]["Labels"]["com.docker.compose.service"], told["HostConfig"]
        check(host["CapDrop"] == ["ALL"] and not host["CapAdd"] and not host["Privileged"], f"{name}: capabilities")
        check(host["ReadonlyRootfs"], f"{name}: its file system can be written")
        check("no-new-privileges:true" in host["SecurityOpt"], f"{name}: {host['SecurityOpt']}")
        check(host["Memory"] > 0 and host["PidsLimit"], f"{name}: no bound on memory or processes")
        ports = {port for port, bound in told["NetworkSettings"]["Ports"].items() if bound}
        check(
            ports == {"api": {"8000/tcp"}, "balancer": {"8080/tcp"}, "prometheus": {"9090/tcp"}}.get(service, set()),
            f"{name} publishes {ports}",
        )
        status = Path(f"/proc/{told['State']['Pid']}/status")
        if status.exists():
            said = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            check(said["Uid"].split()[0] != "0", f"{name} runs as root")
            check(int(said["CapEff"], 16) == 0 and int(said["CapPrm"], 16) == 0, f"{name}: {said['CapEff'].strip()}")
        mounted = {
            mount["Name"].split("_")[-1]
            for mount in told["Mounts"]
            if mount.get("Name", "").startswith(PROJECT) and "secrets" in mount["Name"]
        }
        allowed = {"db": {"secrets-db"}, "cache": {"secrets-cache"}, "api": {"secrets-api"}, "fleet": {"secrets-api"}}
        check(mounted == allowed.get(service, set()), f"{name} sees {mounted}")
        check(
            all(not mount["RW"] for mount in told["Mounts"] if "secrets" in mount.get("Name", "")),
            f"{name} may write its secrets",
        )
    done = compose("exec", "-T", "api", "/usr/local/bin/testshop", "export", "-o", "/usr/local/bin/x.xlsx", must=False)
    check(done.returncode == 1 and "Read-only file system" in done.stderr, f"{done.stdout} {done.stderr}")
    for table in ("create table mine (id int)", "drop table products"):
        done = sql(table, role="testshop_api")
        check(
            done.returncode != 0 and ("permission denied" in done.stderr or "must be owner" in done.stderr), done.stderr
        )


def sql(text, role="testshop"):
    # inside the container, the socket trusts whoever is there
    return compose("exec", "-T", "db", "psql", "-U", role, "-d", "testshop", "-Atc", text, must=False)


@step
def no_secret_is_told():
    """What was drawn at random stands in no log, no inspection, no command line and no layer of the image."""
    names = [
        "db/owner_password",
        "api/database_password",
        "api/redis_password",
        "api/jwt_secret",
        "demo/user_password",
        "demo/staff_password",
    ]
    drawn = [compose("run", "--rm", "-T", "secrets", "secrets", "--print", name).stdout.strip() for name in names]
    check(all(len(secret) >= 40 for secret in drawn) and len(set(drawn)) == len(drawn), "each is drawn for itself")
    told = compose("logs", "--no-color", profiles=PROFILES).stdout + docker("history", "--no-trunc", IMAGE).stdout
    for name in containers(everything=True):
        told += docker("inspect", name).stdout
    for name in containers():
        told += docker("top", name, "-eo", "pid,args").stdout
    for name, secret in zip(names, drawn):
        check(secret not in told, f"{name} is told somewhere")
    committed = run("git", "grep", "-lE", "|".join(re.escape(secret) for secret in drawn), must=False).stdout
    check(not committed, f"committed: {committed}")


@step
def another_secret():
    """A secret is drawn anew on request, and what speaks of it follows; the JWT secret turns in three steps."""

    def drawn(name):
        return compose("run", "--rm", "-T", "secrets", "secrets", "--print", name).stdout.strip()

    # servers that nobody restarts would go on with what they have read
    compose("rm", "-s", "-f", "fleet", "balancer", profiles=["fleet"])
    before, user = drawn("api/database_password"), login_of_a_new_user()
    compose("run", "--rm", "-T", "secrets", "secrets", "--renew", "api/database_password")
    check(drawn("api/database_password") != before, "another password")
    compose("up", "-d", "--force-recreate", "migrate", "api")
    healthy(*containers("api"))
    until("it serves with the new one", lambda: user.again().get("/api/me/").status == 200)
    compose("run", "--rm", "-T", "secrets", "secrets", "--jwt", "announce")
    compose("restart", "-t", "30", "api")
    healthy(*containers("api"))
    check(user.again().get("/api/me/").status == 200, "nobody was logged out")
    compose("run", "--rm", "-T", "secrets", "secrets", "--jwt", "turn")
    compose("restart", "-t", "30", "api")
    healthy(*containers("api"))
    check(user.again().get("/api/me/").status == 200, "nobody was logged out")
    later = login_of_a_new_user()
    compose("run", "--rm", "-T", "secrets", "secrets", "--jwt", "retire")
    compose("restart", "-t", "30", "api")
    healthy(*containers("api"))
    check(
        user.again().get("/api/me/").status == 401 and later.again().get("/api/me/").status == 200,
        "the old one is gone",
    )


def login_of_a_new_user():
    name = "eve" + secrets.token_hex(4)
    account = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    check(published().post("/api/register/", account).status == 201, "register")
    return login(published(), name, PASSWORD)


@step
def demo():
    """The profile demo gives products and two accounts, also a second time."""
    for _ in range(2):
        compose("up", "-d", profiles=["demo"])
        for service in ("demo", "demo-staff"):
            name = containers(service, everything=True)[0]
            until(f"{service} has ended", lambda: inspect(name)["State"]["Status"] == "exited")
            check(inspect(name)["State"]["ExitCode"] == 0, docker("logs", name, must=False).stderr)
    for username, file in (("user1", "demo/user_password"), ("staff", "demo/staff_password")):
        password = compose("run", "--rm", "-T", "secrets", "secrets", "--print", file).stdout.strip()
        caller = login(published(), username, password)
        check(len(caller.get("/api/products/").json()) == 1000, "1,000 products")
    check(caller.get("/api/me/").json()["is_staff"], "staff is staff")


@step
def fleet():
    """A write through one of three servers is in the very next list of each other, and of the balancer."""
    compose("up", "-d", profiles=["fleet"])
    names = containers("fleet")
    check(len(names) == 3, f"{names}")
    healthy(*names)
    until("the balancer has found them", lambda: balancer().get("/healthz").status == 200)
    keeper = staff(balancer())
    servers = [keeper.at(address(name), 8000) for name in names]
    check(keeper.post("/api/categories/", {"name": "Fleet"}).status in (201, 400), "a category")
    product = servers[0].post("/api/products/", {"name": "seen", "price": 1, "category_name": "Fleet"}).json()["id"]
    began, writes = time.monotonic(), 0
    while time.monotonic() - began < 5:
        writer = servers[writes % 3]
        name = f"write {writes}"
        check(writer.call("PATCH", f"/api/products/{product}/", {"name": name}).status == 200, "a write")
        for reader in servers[:: -1 if writes % 2 else 1] + [keeper]:
            listed = {found["id"]: found["name"] for found in reader.get("/api/products/").json()}
            check(listed[product] == name, f"{listed[product]} was shown after {name}")
        writes += 1
    figures["writes, each seen at once by three servers and the balancer"] = writes


@step
def rolling_restart():
    """The three servers are restarted one after the other under constant load: no request is lost."""
    caller = staff(balancer())
    with Load(caller, threads=8) as load:
        for name in containers("fleet"):
            docker("restart", "-t", "30", name)
            healthy(name)
            # the balancer asks twice a second whether it is back
            time.sleep(1.5)
        seen = load.seen()
    figures["requests during a rolling restart; lost"] = f"{load.answers:,}; {sum(seen.values())}"
    check(not seen, f"of {load.answers} requests: {seen}")


@step
def outages():
    """What clients see while containers are stopped and killed, one by one, under a light load."""
    caller = staff(balancer())
    with Load(caller) as load:

        def quiet(what):
            """Waits until nothing is odd any more, and tells what was."""
            seen = {}

            def calm():
                for kind, count in load.seen().items():
                    seen[kind] = seen.get(kind, 0) + count
                answers = load.answers
                time.sleep(1)
                again = load.seen()
                for kind, count in again.items():
                    seen[kind] = seen.get(kind, 0) + count
                return not again and load.answers > answers

            until(f"all is well after {what}", calm)
            figures[f"seen by clients: {what}"] = (
                ", ".join(f"{count} x {kind}" for kind, count in seen.items()) or "nothing"
            )
            return seen

        cache, database = containers("cache")[0], containers("db")[0]
        docker("kill", cache)
        time.sleep(2)
        docker("start", cache)
        check(not quiet("Redis killed for 2 s"), f"no fault of Redis costs an answer: {figures}")

        for name in containers("fleet"):
            docker("kill", name)
            seen = quiet(" ".join(re.split("[-_]", name)[-2:]) + " killed")
            # what was under way is asked again by the balancer; only an answer that had begun can break off
            check(sum(seen.values()) <= 4, seen)
            docker("start", name)
            healthy(name)

        docker("stop", "-t", "20", database)
        time.sleep(2)
        docker("start", database)
        seen = quiet("PostgreSQL stopped for 2 s")
        check(set(seen) <= {"stale", "503"} and seen.get("stale"), f"an outage is labelled or refused: {seen}")
        docker("kill", database)
        docker("start", database)
        seen = quiet("PostgreSQL killed")
        check(set(seen) <= {"stale", "503"}, f"an outage is labelled or refused: {seen}")
    walk(published())


@step
def no_room_for_exports():
    """Where no file can be written, exports are refused, and everything else works."""
    keeper = staff(published())
    for how, mount in (
        ("full", ["--tmpfs", "/var/lib/testshop/exports:size=4k,uid=65532"]),
        ("read-only", ["--tmpfs", "/var/lib/testshop/exports:ro"]),
    ):
        name = f"{PROJECT}-{how}"
        settings = [part for entry in inspect(containers("api")[0])["Config"]["Env"] for part in ("-e", entry)]
        docker(
            "create",
            "--name",
            name,
            "--read-only",
            *mount,
            *settings,
            "-v",
            f"{PROJECT}_secrets-api:/secrets/api:ro",
            "--network",
            f"{PROJECT}_front",
            IMAGE,
        )
        try:
            docker("network", "connect", f"{PROJECT}_back", name)
            docker("start", name)
            caller = keeper.at(address(name), 8000)
            until("it serves", lambda: caller.get("/healthz").status == 200)
            answer = caller.get("/api/products/export/")
            check(
                answer.status == 503 and answer.json() == {"detail": "Service temporarily unavailable."},
                f"{how}: {answer.status} {answer.body[:200]}",
            )
            check(caller.get("/api/products/").status == 200, "the list goes on")
        finally:
            docker("rm", "-f", name)


@step
def migrate_without_a_database():
    """`migrate` waits for a database within a bound, and then fails clearly."""
    database = containers("db")[0]
    docker("stop", database)
    try:
        began = time.monotonic()
        done = compose("run", "--rm", "--no-deps", "-T", "migrate", "migrate", must=False)
        seconds = time.monotonic() - began
        check(
            done.returncode == 1 and "waiting for the database" in done.stderr + done.stdout,
            f"{done.returncode} {done.stderr[-500:]}",
        )
        check(20 < seconds < 60, f"{seconds:.0f} s")
    finally:
        docker("start", database)
        healthy(database)


@step
def observe():
    """Prometheus reaches every server and the balancer, and its rules do what they are for."""
    compose("up", "-d", profiles=["fleet", "observe"])
    prometheus = Caller("127.0.0.1", PORTS["PROMETHEUS_PORT"])
    expected = len(containers("api") + containers("fleet") + containers("balancer"))

    def all_up():
        told = prometheus.get("/api/v1/query?query=up").json()["data"]["result"]
        return sum(series["value"][1] == "1" for series in told) == expected

    until(f"{expected} targets are up", all_up)

    def rules_run():
        rules = prometheus.get("/api/v1/rules").json()["data"]["groups"][0]["rules"]
        return len(rules) >= 8 and all(rule["health"] == "ok" for rule in rules)

    until("every rule has run", rules_run)
    image = inspect(containers("prometheus")[0])["Config"]["Image"]
    for arguments in (["check", "config", "/rules/prometheus.yml"], ["test", "rules", "/rules/alerts_test.yml"]):
        docker(
            "run",
            "--rm",
            "--tmpfs",
            "/tmp",
            "-v",
            f"{ROOT}/deploy/prometheus:/rules:ro",
            "--entrypoint",
            "promtool",
            image,
            *arguments,
        )


@step
def load():
    """k6 browses, and its thresholds hold."""
    ENVIRONMENT.update(LOAD_DURATION="10s", LOAD_RATE="100")
    done = compose("run", "--rm", "-T", "load", profiles=["load"], must=False)
    check(done.returncode == 0, (done.stdout + done.stderr)[-3000:])


@step
def pooler():
    """With PgBouncer between, in transaction mode, statements stay prepared and nothing is missing."""
    compose("stop", "fleet", profiles=["fleet"])
    compose("build", "pooler", files=POOLER)
    compose("up", "-d", files=POOLER)
    healthy(*containers("api"))
    # what runs in it is really behind it
    where = "select string_agg(distinct client_addr::text, ' ') from pg_stat_activity where usename = 'testshop_api'"
    until("the server is at the pooler", lambda: published().get("/readyz").status == 200)
    until(
        "only the pooler is at PostgreSQL",
        lambda: (
            sql(where).stdout.strip()
            in {f"{inner(name)}/32" for name in containers("pooler")} | {inner(name) for name in containers("pooler")}
        ),
    )
    for _ in range(3):
        walk(published())
    caller = staff(published())
    category = caller.get("/api/categories/").json()[0]["id"]
    with Load(caller, threads=8, path="/api/categories/") as reads:
        for number in range(200):
            made = caller.post("/api/products/", {"name": f"pooled {number}", "price": 1, "category_id": category})
            check(made.status == 201, f"{made.status} {made.body}")
            check(
                any(found["id"] == made.json()["id"] for found in caller.get("/api/products/").json()),
                "a write is in the next list",
            )
        # an import is one transaction, its temporary table included
        workbook = caller.get("/api/products/export/")
        answer = caller.call(
            "POST", "/api/products/import/", workbook.body, **{"Content-Type": workbook.headers["Content-Type"]}
        )
        check(answer.status == 200 and answer.json()["unchanged"] >= 200, f"{answer.status} {answer.body[:300]}")
        new = "Name,Category,Price\r\n" + "".join(
            f"imported {n},{caller.get('/api/categories/').json()[0]['name']},1\r\n" for n in range(3)
        )
        answer = caller.call("POST", "/api/products/import/", new.encode(), **{"Content-Type": "text/csv"})
        check(answer.status == 200 and answer.json()["created"] == 3, f"{answer.status} {answer.body[:300]}")
        seen = reads.seen()
    check(not seen, f"{seen}")
    figures["requests through PgBouncer; failed"] = f"{reads.answers:,}; 0"
    compose("stop", "pooler", files=POOLER)
    compose("up", "-d", "--remove-orphans")
    healthy(*containers("api"))


def inner(name):
    networks = inspect(name)["NetworkSettings"]["Networks"]
    return next(network["IPAddress"] for key, network in networks.items() if key.endswith("back"))


# -- all of it -----------------------------------------------------------------------------------------------


def main(chosen):
    if chosen == ["--list"]:
        print(*(f"{function.__name__:<28} {function.__doc__}" for function in STEPS), sep="\n")
        return 0
    lacking = missing()
    if lacking:
        print(f"docker-test: SKIPPED, NOTHING WAS TESTED: {lacking}", flush=True)
        return 0
    failed = False
    try:
        for number, function in enumerate(STEPS):
            if chosen and number >= 2 and function.__name__ not in chosen:
                continue
            began = time.monotonic()
            try:
                function()
                verdict = "ok"
            except (Failed, subprocess.TimeoutExpired, OSError, http.client.HTTPException) as fault:
                failed, verdict = True, f"FAILED: {type(fault).__name__} {fault}"
            print(f"{function.__name__:<28} {time.monotonic() - began:5.1f} s  {verdict}", flush=True)
            if failed:
                print(compose("logs", "--no-color", "--tail=20", profiles=PROFILES, must=False).stdout[-6000:])
                break
    finally:
        remove()
    for what, figure in figures.items():
        print(f"  {what}: {figure}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
