#!/usr/bin/env python3
"""Tests every parameter for SQL injection with sqlmap: queries, paths, bodies, headers.

Uses a private PostgreSQL, Redis, server and sqlmap (the Debian package). First sqlmap has to find the injection in a
vulnerable server, which proves that it can find one. Exits with 1 when a parameter is injectable.
"""

import argparse
import concurrent.futures
import http.server
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from typing import Any, NamedTuple

from services import install_debian_package
from test_server import PASSWORD, ROOT, STAFF, rerun_with_services, running_server

OUTPUT = ROOT / "target/sqlmap"
# sqlmap tests each value that an asterisk follows
LIST = (
    "category=Sport*&tag=new*&price_min=1*&price_max=99*&created_after=2023-01-01*&created_before=2030-01-01*"
    "&search=a*&ordering=price*&page_size=10*&id=1*&fields=id*"
)
PRODUCT = {"name": "A ball*", "description": "round*", "price": "9.99*", "category_id": "1*", "tags": ["new*"]}
TABLE = "ID,Name,Description,Category,Price,Created at,Tags\r\n,A ball*,Round*,Sport*,9.99*,2023-08-08*,new*\r\n"
INJECTION_FOUND = "sqlmap identified the following injection point"


class Request(NamedTuple):
    """A request with marked values; a dictionary as the body is sent as JSON."""

    name: str
    method: str
    path: str
    body: dict[str, Any] | str | None = None
    headers: dict[str, str] = {}  # noqa: RUF012 (never changed)


REQUESTS = [
    Request("list", "GET", f"/api/products/?{LIST}&page=1*"),
    Request("cursor", "GET", "/api/products/?ordering=name&page_size=5&cursor={cursor}*"),
    Request("export", "GET", f"/api/products/export/?{LIST}&format=csv*"),
    Request("product", "GET", "/api/products/1*/"),
    Request("category", "GET", "/api/categories/1*/"),
    Request("tag", "GET", "/api/tags/1*/"),
    Request(
        "headers",
        "GET",
        "/api/me/",
        headers={"X-Request-Id": "17*", "X-Forwarded-For": "203.0.113.7*", "User-Agent": "a client*"},
    ),
    Request("token", "GET", "/api/me/", headers={"Authorization": "Bearer a.b.c*"}),
    Request("login", "POST", "/api/login/", {"username": "staff*", "password": "a password*"}),
    Request(
        "register",
        "POST",
        "/api/register/",
        {"username": "ann*", "email": "ann@example.com*", "password": "a long passphrase*"},
    ),
    Request("refresh", "POST", "/api/token/refresh/", {"refresh": "1b4e28ba2fa111d2883f0016d3cca427.AAAA*"}),
    Request("password", "POST", "/api/password/", {"old_password": "a*", "new_password": "another passphrase*"}),
    Request("create", "POST", "/api/products/", PRODUCT),
    Request("create by name", "POST", "/api/products/", {"name": "A ball", "price": 1, "category_name": "Sport*"}),
    # only the key is marked: with another body the same key is rejected before anything else is checked
    Request(
        "key",
        "POST",
        "/api/products/",
        {"name": "A ball", "price": 1, "category_id": 1},
        {"Idempotency-Key": "a-key*"},
    ),
    Request("replace", "PUT", "/api/products/2/", PRODUCT),
    Request("match", "PATCH", "/api/products/4/", {"price": 1}, {"If-Match": '"a*"'}),
    Request("none match", "GET", "/api/products/", headers={"If-None-Match": '"a*"'}),
    # a category in use: it is not deleted, so sqlmap can repeat the request
    Request("delete", "DELETE", "/api/categories/1*/"),
    Request("rename", "PUT", "/api/categories/1/", {"name": "Games*"}),
    Request("change", "PATCH", "/api/products/3/", PRODUCT),
    Request("categories", "POST", "/api/categories/", {"name": "Games*"}),
    Request("tags", "PATCH", "/api/tags/1/", {"name": "big*"}),
    Request(
        "import",
        "POST",
        "/api/products/import/?dry_run=true*&on_error=skip*&create_categories=true*&missing_id=create*",
        TABLE,
        {"Content-Type": "text/csv"},
    ),
]


class VulnerableServer(http.server.BaseHTTPRequestHandler):
    """A server with an SQL injection in the parameter `name`."""

    def do_GET(self) -> None:
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

    def log_message(self, *_: Any) -> None:
        pass


def sqlmap(url: str, request: Request) -> str:
    """Tests the marked values of a request and returns sqlmap's output."""
    headers, body = request.headers, request.body
    if isinstance(body, dict):
        body, headers = json.dumps(body), {"Content-Type": "application/json", **headers}
    host = urllib.parse.urlsplit(url).netloc
    header_lines = [f"{key}: {value}" for key, value in headers.items()]
    OUTPUT.mkdir(parents=True, exist_ok=True)
    file = OUTPUT / f"{request.name}.http"
    file.write_text(
        "\r\n".join([f"{request.method} {request.path} HTTP/1.1", f"Host: {host}", *header_lines, "", body or ""])
    )
    options = ["--batch", "--ignore-stdin", "--flush-session", "--disable-coloring", "--level", "2", "--risk", "2"]
    run = ["sqlmap", "-r", file, *options, "--ignore-code", "401", "--output-dir", OUTPUT / request.name]
    done = subprocess.run(
        [str(part) for part in run], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1500
    )
    (OUTPUT / f"{request.name}.log").write_text(done.stdout + done.stderr)
    return done.stdout


def check_detection() -> None:
    """Exits when sqlmap does not find the injection in the vulnerable server."""
    vulnerable = http.server.ThreadingHTTPServer(("127.0.0.1", 0), VulnerableServer)
    threading.Thread(target=vulnerable.serve_forever, daemon=True).start()
    request = Request("vulnerable", "GET", "/?name=ball*")
    if INJECTION_FOUND not in sqlmap(f"http://127.0.0.1:{vulnerable.server_port}", request):
        sys.exit("sqlmap_test: sqlmap does not find the injection in the vulnerable server")


def log_in(url: str) -> dict[str, str]:
    """Returns the headers of an authenticated request."""
    credentials = json.dumps({"username": STAFF, "password": PASSWORD}).encode()
    login = urllib.request.Request(url + "/api/login/", credentials, {"Content-Type": "application/json"})
    return {"Authorization": "Bearer " + json.load(urllib.request.urlopen(login))["token"]}


def a_cursor(url: str, headers: dict[str, str]) -> str:
    page = urllib.request.Request(url + "/api/products/?ordering=name&page_size=5", headers=headers)
    found = re.search("cursor=([^&>]+)", urllib.request.urlopen(page).headers["Link"])
    assert found, "the first page has no link to the next"
    return found.group(1)


def check_request(url: str, request: Request) -> tuple[int, bool]:
    """Returns the number of values that were tested, and whether none is injectable."""
    marked = json.dumps(request).count("*")
    output = sqlmap(url, request)
    tested = len(re.findall(r"parameter '[^']*' does not seem to be injectable", output))
    values = 0 if INJECTION_FOUND in output else tested
    # sqlmap also tests the path when no value in it is marked, so there may be more values than marks
    held = values >= marked
    print(f"{'ok' if held else 'FAILED':<6} {request.name}: {values} values, {marked} of them marked", flush=True)
    return values, held


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if not shutil.which("sqlmap"):
        install_debian_package("sqlmap")
    rerun_with_services("sqlmap")
    check_detection()
    with running_server(products=200) as (url, server):
        authorization = log_in(url)
        cursor = a_cursor(url, authorization)
        requests = [
            request._replace(
                path=request.path.replace("{cursor}", cursor), headers={**authorization, **request.headers}
            )
            for request in REQUESTS
        ]
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            results = list(pool.map(lambda request: check_request(url, request), requests))
        is_alive = server.poll() is None
    if not is_alive or not all(held for _, held in results):
        sys.exit(f"sqlmap_test: see {OUTPUT}; the server {'runs' if is_alive else 'has ended'}")
    # a row of the table of stress.py
    values = sum(count for count, _ in results)
    observed = f"sqlmap tested {values} values of {len(REQUESTS)} requests and found none injectable"
    print(f"RESULT | no parameter is injectable | {observed}; it found the injection in a vulnerable server")


if __name__ == "__main__":
    main()
