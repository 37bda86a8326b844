#!/usr/bin/env python3
"""Measures the shop on this machine, side by side with the limit of its stack, in interleaved rounds.

    loadtest/quick.py [--rounds N] [--seconds S] [--only list,start,cold,pages,export,imports]

Brings its own PostgreSQL and Redis; needs wrk, psql and a release build with examples
(`cargo build --release --examples --bins`). Prints one table of medians, with the spread.
"""
import argparse, http.client, json, os, random, re, signal, statistics, subprocess, sys, tempfile, threading, time, urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHOP = ROOT / "target/release/testshop"
EXAMPLES = ROOT / "target/release/examples"
PASSWORD = "a password for load tests"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
SECRET = "a secret for load tests: more than 32 bytes"


def rows_of(table):
    for what, values, note in table:
        middle = statistics.median(values)
        print(f"{what:<58} {middle:>12,.3f}  [{min(values):,.3f} .. {max(values):,.3f}] {note}")


class Server:
    """A process that serves, with its address, ended at the end."""

    def __init__(self, command, environment, ready):
        self.began = time.monotonic()
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.lines = {}
        for line in self.process.stdout:
            found = re.match(r"(.*) on (http://\S+)", line)
            if found:
                self.lines[found.group(1)] = found.group(2)
            if ready in line:
                break
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.url = self.lines["listening"]

    def memory(self, what="VmRSS"):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{what}:\s+(\d+)", status).group(1)) / 1024

    def forget_peak(self):
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def cpu(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(40)


def get(url, token=None, body=None):
    request = urllib.request.Request(url, data=body)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    return urllib.request.urlopen(request, timeout=300)


class Bench:
    def __init__(self, arguments):
        self.rounds, self.seconds = arguments.rounds, arguments.seconds
        self.base = os.environ["DATABASE_URL"].rsplit("/", 1)[0]
        self.psql = [os.path.join(os.environ.get("PG_BIN", ""), "psql"), "-qXAt"]

    def sql(self, database, text, *more):
        return subprocess.run([*self.psql, f"{self.base}/{database}", *more, "-c", text], check=True, capture_output=True, text=True).stdout

    def environment(self, database):
        return {**os.environ, "DATABASE_URL": f"{self.base}/{database}", "JWT_SECRET": SECRET, "PBKDF2_ITERATIONS": "1000",
                "LISTEN_ADDR": "127.0.0.1:0", "ADMIN_ADDR": "127.0.0.1:0", "RATE_LIMIT": "off", "REDIS_PREFIX": database}

    def catalogue(self, products):
        name = f"load_{products}"
        if not self.sql("testshop", f"select 1 from pg_database where datname = '{name}'").strip():
            self.sql("testshop", f"create database {name}")
            run = lambda *arguments, **more: subprocess.run([SHOP, *arguments], env=self.environment(name), check=True, capture_output=True, text=True, **more).stdout
            run("migrate")
            run("seed", "--products", "0", "--users", "1", input=PASSWORD)
            self.seeded = run("seed", "--products", str(products))
            self.sql(name, "vacuum analyze")
        return name

    def shop(self, database):
        return Server([SHOP, "serve"], self.environment(database), "health and metrics")

    def login(self, server):
        body = json.dumps({"username": "user1", "password": PASSWORD}).encode()
        request = urllib.request.Request(server.url + "/api/login/", data=body, headers={"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request))["token"]

    def wrk(self, url, token, *headers):
        command = ["wrk", "-t1", "-c64", f"-d{self.seconds}s", "-H", f"Authorization: Bearer {token}"]
        for header in headers:
            command += ["-H", header]
        out = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
        assert "Non-2xx" not in out or headers, out
        return float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))

    def metric(self, server, name):
        text = get(server.lines["health and metrics"] + "/metrics").read().decode()
        found = re.search(rf"^{name} (\S+)", text, re.M)
        return float(found.group(1)) if found else 0.0

    def list(self):
        database = self.catalogue(100)
        shop = self.shop(database)
        token = self.login(shop)
        path, page = "/api/products/", "/api/products/?page_size=1000"
        reply = get(shop.url + path, token)
        body, etag = reply.read(), reply.headers["ETag"]
        assert get(shop.url + page, token).read() == body
        with tempfile.NamedTemporaryFile() as file, tempfile.NamedTemporaryFile() as empty:
            file.write(body)
            file.flush()
            limit = Server([EXAMPLES / "limit", "127.0.0.1:0", file.name], os.environ, "listening")
            nothing = Server([EXAMPLES / "limit", "127.0.0.1:0", empty.name], os.environ, "listening")
        rates = {"limit": [], "shop": [], "page": [], "limit 0": [], "304": []}
        cost = {"limit": [], "shop": [], "page": []}
        before = {name: self.metric(shop, name) for name in ("testshop_version_reads_total", "testshop_cache_fills_total", "testshop_redis_calls_total", "testshop_cache_hits_memory_total")}
        for _ in range(self.rounds):
            for name, server, headers in [("limit", limit, []), ("shop", shop, []), ("page", shop, []), ("limit 0", nothing, []), ("304", shop, [f"If-None-Match: {etag}"])]:
                cpu = server.cpu()
                rate = self.wrk(server.url + (path if name != "page" else page), token, *headers)
                rates[name].append(rate)
                if name in cost:
                    cost[name].append((server.cpu() - cpu) / (rate * self.seconds) * 1e6)
        after = {name: self.metric(shop, name) - value for name, value in before.items()}
        ratio = [a / b for a, b in zip(rates["shop"], rates["limit"])]
        yield f"list of 100 products ({len(body)} bytes), cached, requests/s", rates["shop"], ""
        yield "  the limit server with the same bytes, requests/s", rates["limit"], ""
        yield "  ratio, round by round", ratio, "target >= 0.75"
        yield "  CPU of the server per request, us", cost["shop"], ""
        yield "  CPU of the limit server per request, us", cost["limit"], ""
        yield "the same 100 as a page, cached, requests/s", rates["page"], ""
        yield "  ratio to the whole list", [a / b for a, b in zip(rates["page"], rates["shop"])], "target 1"
        yield "  requests per version read", [after["testshop_cache_hits_memory_total"] / max(after["testshop_version_reads_total"], 1)], ""
        yield "  fills and Redis calls during all hits", [after["testshop_cache_fills_total"] + after["testshop_redis_calls_total"]], "target 0"
        yield "304, requests/s", rates["304"], ""
        yield "  ratio to the limit server with no body", [a / b for a, b in zip(rates["304"], rates["limit 0"])], ""
        for server in (shop, limit, nothing):
            server.end()

    def cold(self):
        database = self.catalogue(100_000)
        shop = self.shop(database)
        token = self.login(shop)
        statement = (ROOT / "sql/products/list.sql").read_text()
        shops, psqls = [], []
        get(shop.url + "/api/me/", token).read()
        for _ in range(max(self.rounds, 5)):
            self.sql(database, "update versions set version = version + 1, token = gen_random_uuid() where name = 'catalogue'")
            began = time.monotonic()
            reply = get(shop.url + "/api/products/", token)
            assert "fwd=miss" in reply.headers["Cache-Status"], reply.headers["Cache-Status"]
            while reply.read(1 << 20):
                pass
            shops.append(time.monotonic() - began)
            began = time.monotonic()
            subprocess.run([*self.psql, f"{self.base}/{database}", "-o", "/dev/null", "-c", statement], check=True)
            psqls.append(time.monotonic() - began)
        yield "list of 100,000 products, cold, s", shops, ""
        yield "  psql, the same statement to /dev/null, s", psqls, ""
        yield "  ratio", [a / b for a, b in zip(shops, psqls)], "target <= 1.5"
        shop.end()

    def export(self):
        database = self.catalogue(1_000_000)
        seeded = re.search(r"in ([\d.]+)(m?s)", self.seeded) if hasattr(self, "seeded") else None
        shop = self.shop(database)
        token = self.login(shop)
        get(shop.url + "/api/me/", token).read()
        times, again, peaks, alone, statements = [], [], [], [], []
        statement = (ROOT / "sql/products/list.sql").read_text()
        for _ in range(min(self.rounds, 3)):
            self.sql(database, "update versions set version = version + 1, token = gen_random_uuid() where name = 'catalogue'")
            idle = shop.memory()
            shop.forget_peak()
            for took in (times, again):
                began = time.monotonic()
                reply = get(shop.url + "/api/products/export/", token)
                while reply.read(1 << 20):
                    pass
                took.append(time.monotonic() - began)
            peaks.append(shop.memory("VmHWM") - idle)
            began = time.monotonic()
            out = subprocess.run([EXAMPLES / "workbook", "1000000"], check=True, capture_output=True, text=True).stdout
            alone.append(float(re.search(r"([\d.]+) s", out).group(1)))
            began = time.monotonic()
            self.sql(database, f"copy ({statement}) to stdout (format binary)", "-o", "/dev/null")
            statements.append(time.monotonic() - began)
        yield "export of 1,000,000 products, s", times, ""
        yield "  rust_xlsxwriter alone, the same cells from memory, s", alone, ""
        yield "  the statement alone (copy, binary, to /dev/null), s", statements, ""
        yield "  ratio of the export to 1.3 x alone + the statement", [t / (1.3 * a + s) for t, a, s in zip(times, alone, statements)], "target <= 1"
        yield "  peak memory over idle, MiB", peaks, "target <= 64"
        yield "  the same version again, s", again, ""
        if seeded:
            seconds = float(seeded.group(1)) / (1000 if seeded.group(2) == "ms" else 1)
            yield "seed, products/s", [1_000_000 / seconds], "target >= 50,000"
        shop.end()

    def imports(self):
        """Files of 100,000 products: all new, all changed, all as they are; and what others who write meanwhile wait."""
        database = self.catalogue(100_000)
        shop = self.shop(database)
        self.sql(database, "update users set is_staff = true")
        token = self.login(shop)
        headers = {"Authorization": f"Bearer {token}"}
        fetch = lambda query: get(f"{shop.url}/api/products/export/?{query}", token).read()
        largest = int(self.sql(database, "select max(id) from products"))
        workbook, table = fetch(""), fetch("format=csv")
        new = re.sub(rb"\r\n\d+,", b"\r\n,", table)
        kinds = {
            "CSV, all new": ("text/csv", new, "created", f"delete from products where id > {largest}"),
            "XLSX, all changed": (XLSX, workbook, "updated", "update products set price = price + 1"),
            "XLSX, all unchanged": (XLSX, workbook, "unchanged", "select 1"),
        }
        for name, (content_type, body, done, before) in kinds.items():
            times, waits, peaks = [], [], []
            for _ in range(min(self.rounds, 3)):
                self.sql(database, before)
                self.sql(database, "vacuum analyze products, product_tags")
                idle, stop, longest = shop.memory(), threading.Event(), [0.0]
                shop.forget_peak()

                def write():
                    while not stop.is_set():
                        began = time.monotonic()
                        tag = json.dumps({"name": f"beside {began}"}).encode()
                        urllib.request.urlopen(urllib.request.Request(f"{shop.url}/api/tags/", data=tag, headers={**headers, "Content-Type": "application/json"}), timeout=60).read()
                        longest[0] = max(longest[0], time.monotonic() - began)
                        time.sleep(0.02)

                writer = threading.Thread(target=write)
                if done == "created":
                    writer.start()
                began = time.monotonic()
                request = urllib.request.Request(f"{shop.url}/api/products/import/", data=body, headers={**headers, "Content-Type": content_type})
                report = json.load(urllib.request.urlopen(request, timeout=300))
                times.append(time.monotonic() - began)
                stop.set()
                assert report[done] == 100_000, report
                peaks.append(shop.memory("VmHWM") - idle)
                waits.append(longest[0])
            yield f"import of 100,000 products ({len(body) / 1e6:.1f} MB {name}), s", times, "target <= 20"
            yield "  peak memory over idle, MiB", peaks, "target <= 128"
            if any(waits):
                yield "  the longest that another write waited, s", waits, ""
        shop.end()

    def pages(self):
        """Pages of a million products, each made from the database: no cache, one connection."""
        database = self.catalogue(1_000_000)
        shop = Server([SHOP, "serve"], {**self.environment(database), "CACHE_MODE": "off"}, "health and metrics")
        host, port = shop.url.removeprefix("http://").split(":")
        connection, headers = http.client.HTTPConnection(host, int(port)), {"Authorization": f"Bearer {self.login(shop)}"}

        def page(address):
            began = time.monotonic()
            connection.request("GET", address, headers=headers)
            reply = connection.getresponse()
            body = reply.read()
            assert reply.status == 200, body[:300]
            return (time.monotonic() - began) * 1000, reply, body

        dice = random.Random(1)
        words = lambda: dice.choice(["sturdy", "light", "bright", "quiet", "handy"]) + "+" + dice.choice(["kettle", "lamp", "chair", "camera"])
        price = lambda: dice.randrange(10_000)
        kinds = {
            "by id": lambda: "ordering=id",
            "by price, down": lambda: f"ordering=-price&price_max={price()}",
            "one category": lambda: f"category={dice.choice(['Sport', 'Books', 'Tea'])}&ordering=name",
            "one tag": lambda: f"tag={dice.choice(['eco', 'new', 'gift'])}",
            "category, tag and price": lambda: f"category={dice.choice(['Sport', 'Books', 'Tea'])}&tag=eco&price_min={price()}&ordering=price",
            "search of two words": lambda: f"search={words()}",
        }
        for name, query in kinds.items():
            times = sorted(page(f"/api/products/?page_size=100&{query()}")[0] for _ in range(40 * self.rounds))
            yield f"page of 100, uncached, {name}: ms", times[: -len(times) // 100] or times, f"p99 {times[-(len(times) // 100) - 1]:.2f}; target <= {50 if 'search' in name else 5}"
        address, rows, began = "/api/products/?page_size=1000", 0, time.monotonic()
        first, deep = [], []
        while address:
            took, reply, _ = page(address)
            rows += 1000
            (first if rows <= 50_000 else deep if rows > 950_000 else []).append(took)
            found = re.search(r'<([^>]+)>; rel="next"', reply.headers.get("Link") or "")
            address = found and found.group(1)
        yield "keyset walk of all pages of 1,000, rows/s", [rows / (time.monotonic() - began)], "target >= 200,000"
        yield "  a page at the end against one at the beginning", [statistics.median(deep) / statistics.median(first)], "target 1"
        shop.end()

    def start(self):
        database = self.catalogue(100)
        times, idle = [], []
        for _ in range(max(self.rounds, 5)):
            server = self.shop(database)
            while json.load(get(server.url + "/readyz")).get("database") != "ok":
                pass
            times.append(time.monotonic() - server.began)
            idle.append(server.memory())
            server.end()
        yield "ready to serve after start, s", times, "target <= 0.2"
        yield "idle memory, MiB", idle, "target <= 30"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", default="list,start,cold,pages,export,imports")
    arguments = parser.parse_args()
    if not os.environ.get("SERVICES_INSTANCE"):
        return subprocess.run([sys.executable, ROOT / "scripts/services.py", "run", "load", "--", sys.executable, __file__, *sys.argv[1:]]).returncode
    bench = Bench(arguments)
    print(f"{'what':<58} {'median':>12}  [least .. most]")
    for name in arguments.only.split(","):
        rows_of(getattr(bench, name)())
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
