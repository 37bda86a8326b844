#!/usr/bin/env python3
"""Tries every parameter out with sqlmap: queries, paths, bodies, headers. Nothing may be injectable.

    injection.py

Brings its own PostgreSQL, Redis, server and sqlmap (Debian's). First it lets sqlmap find the hole in a server that has one:
what finds nothing there would prove nothing here. Exits with 1 when anything is injectable.
"""
import concurrent.futures, http.server, json, re, shutil, sqlite3, subprocess, sys, threading, urllib.parse, urllib.request
from pathlib import Path

from served import PASSWORD, ROOT, STAFF, in_services, served
from services import from_debian

OUTPUT = ROOT / "target/injection"
# a mark behind each value that is tried
LIST = "category=Sport*&tag=new*&price_min=1*&price_max=99*&created_after=2023-01-01*&created_before=2030-01-01*&search=a*&ordering=price*&page_size=10*"
PRODUCT = {"name": "A ball*", "description": "round*", "price": "9.99*", "category_id": "1*", "tags": ["new*"]}
TABLE = "ID,Name,Description,Category,Price,Created at,Tags\r\n,A ball*,Round*,Sport*,9.99*,2023-08-08*,new*\r\n"
REQUESTS = [
    ("list", "GET", f"/api/products/?{LIST}&page=1*", None, {}),
    ("cursor", "GET", "/api/products/?ordering=name&page_size=5&cursor={cursor}*", None, {}),
    ("export", "GET", f"/api/products/export/?{LIST}&format=csv*", None, {}),
    ("product", "GET", "/api/products/1*/", None, {}),
    ("category", "GET", "/api/categories/1*/", None, {}),
    ("tag", "GET", "/api/tags/1*/", None, {}),
    ("headers", "GET", "/api/me/", None, {"X-Request-Id": "17*", "X-Forwarded-For": "203.0.113.7*", "User-Agent": "a client*"}),
    ("token", "GET", "/api/me/", None, {"Authorization": "Bearer a.b.c*"}),
    ("login", "POST", "/api/login/", {"username": "staff*", "password": "a password*"}, {}),
    ("register", "POST", "/api/register/", {"username": "ann*", "email": "ann@example.com*", "password": "a long passphrase*"}, {}),
    ("refresh", "POST", "/api/token/refresh/", {"refresh": "1b4e28ba2fa111d2883f0016d3cca427.AAAA*"}, {}),
    ("password", "POST", "/api/password/", {"old_password": "a*", "new_password": "another passphrase*"}, {}),
    ("create", "POST", "/api/products/", PRODUCT, {}),
    ("create by name", "POST", "/api/products/", {"name": "A ball", "price": 1, "category_name": "Sport*"}, {}),
    # under a key all but the first would be told that it stands for another body, whatever they say
    ("key", "POST", "/api/products/", {"name": "A ball", "price": 1, "category_id": 1}, {"Idempotency-Key": "a-key*"}),
    ("replace", "PUT", "/api/products/2/", PRODUCT, {}),
    ("match", "PATCH", "/api/products/4/", {"price": 1}, {"If-Match": '"a*"'}),
    ("none match", "GET", "/api/products/", None, {"If-None-Match": '"a*"'}),
    # one in use: what is deleted could be asked about once only
    ("delete", "DELETE", "/api/categories/1*/", None, {}),
    ("rename", "PUT", "/api/categories/1/", {"name": "Games*"}, {}),
    ("change", "PATCH", "/api/products/3/", PRODUCT, {}),
    ("categories", "POST", "/api/categories/", {"name": "Games*"}, {}),
    ("tags", "PATCH", "/api/tags/1/", {"name": "big*"}, {}),
    ("import", "POST", "/api/products/import/?dry_run=true*&on_error=skip*", TABLE, {"Content-Type": "text/csv"}),
]
FOUND = "sqlmap identified the following injection point"


class Careless(http.server.BaseHTTPRequestHandler):
    """A server that has the hole."""

    def do_GET(self):
        database = sqlite3.connect(":memory:")
        database.executescript("create table products (name text); insert into products values ('ball'), ('rope')")
        name = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("name", [""])[0]
        try:
            rows = database.execute(f"select name from products where name = '{name}'").fetchall()
        except sqlite3.Error:
            rows = []
        body = json.dumps(rows).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def sqlmap(name, url, method, path, body, headers):
    """What it says of one request."""
    place = urllib.parse.urlsplit(url)
    if isinstance(body, dict):
        body, headers = json.dumps(body), {"Content-Type": "application/json", **headers}
    lines = [f"{method} {path} HTTP/1.1", f"Host: {place.netloc}", *(f"{key}: {value}" for key, value in headers.items()), "", body or ""]
    OUTPUT.mkdir(parents=True, exist_ok=True)
    file = OUTPUT / f"{name}.http"
    file.write_text("\r\n".join(lines))
    run = ["sqlmap", "-r", file, "--batch", "--ignore-stdin", "--flush-session", "--disable-coloring", "--level", "2", "--risk", "2", "--ignore-code", "401",
           "--output-dir", OUTPUT / name]
    said = subprocess.run([str(part) for part in run], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1500)
    (OUTPUT / f"{name}.log").write_text(said.stdout + said.stderr)
    return said.stdout


def main():
    if not shutil.which("sqlmap"):
        from_debian("sqlmap")
    in_services("injection")
    careless = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Careless)
    threading.Thread(target=careless.serve_forever, daemon=True).start()
    if FOUND not in sqlmap("careless", f"http://127.0.0.1:{careless.server_port}", "GET", "/?name=ball*", None, {}):
        sys.exit("injection: sqlmap does not find a hole that is there")
    with served(products=200) as (url, server):
        credentials = json.dumps({"username": STAFF, "password": PASSWORD}).encode()
        login = urllib.request.Request(url + "/api/login/", credentials, {"Content-Type": "application/json"})
        bearer = {"Authorization": "Bearer " + json.load(urllib.request.urlopen(login))["token"]}
        page = urllib.request.urlopen(urllib.request.Request(url + "/api/products/?ordering=name&page_size=5", headers=bearer))
        cursor = re.search("cursor=([^&>]+)", page.headers["Link"]).group(1)

        def tried(request):
            """How many of its values are in order."""
            name, method, path, body, headers = request
            marks = json.dumps(request).count("*")
            said = sqlmap(name, url, method, path.replace("{cursor}", cursor), body, {**bearer, **headers})
            values = 0 if FOUND in said else len(re.findall(r"parameter '[^']*' does not seem to be injectable", said))
            # where a path has no mark it tries the path too
            in_order = values >= marks
            print(f"{'ok' if in_order else 'BROKEN':<6} {name}: {values} values, {marks} of them marked", flush=True)
            return values, in_order

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            results = list(pool.map(tried, REQUESTS))
        alive = server.poll() is None
    values = sum(count for count, _ in results)
    if not alive or not all(in_order for _, in_order in results):
        sys.exit(f"injection: see {OUTPUT}; the server is {'up' if alive else 'gone'}")
    # for the table of hard.py
    print(f"SEEN | no value becomes a part of a statement | {values} values of {len(REQUESTS)} requests by sqlmap: none injectable; the hole of a careless server was found")


if __name__ == "__main__":
    main()
