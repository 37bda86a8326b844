"""Logins and registrations with 600,000 iterations, and what readers notice of 200 who log in at once.

The raw figure is examples/hashing.rs: as many threads as the shop gives to hashing do nothing else.
"""
import re, subprocess, time

from load import interleave, k6, ratios, wrk
from rows import row
from servers import EXAMPLES, PASSWORD, SHOP, catalogue, environment, psql, serving, shop

ITERATIONS = 600_000


def raw(seconds):
    out = subprocess.run([EXAMPLES / "hashing", str(ITERATIONS), str(seconds)], check=True, capture_output=True, text=True).stdout
    return float(re.search(r"([\d.]+) hashes/s", out).group(1))


def hashed(ours, path, script, seconds):
    """Passwords a second that the shop got done while clients asked for it; what was half done at the end is not lost as a request would be."""
    before, began = ours.metrics()["passwords_total"], time.monotonic()
    wrk(ours, path, connections=4, seconds=seconds, script=script)
    return (ours.metrics()["passwords_total"] - before) / (time.monotonic() - began)


def run(bench):
    database, seconds = catalogue(1_000), max(bench.seconds, 8)
    subprocess.run([SHOP, "set-password", "user1"], env=environment(database, PBKDF2_ITERATIONS=ITERATIONS), input=PASSWORD, text=True, check=True, capture_output=True)
    with serving(shop(database, PBKDF2_ITERATIONS=ITERATIONS)) as ours:
        measures = {
            "raw": lambda: raw(seconds),
            "login": lambda: hashed(ours, "/api/login/", "login.lua", seconds),
            "register": lambda: hashed(ours, "/api/register/", "register.lua", seconds),
        }
        results = interleave(min(bench.rounds, 3), measures)
        yield row("accounts.raw", "hashes by the same threads, and nothing else", "/s", results["raw"], reference=True)
        for name in ("login", "register"):
            yield row(f"accounts.{name}", f"{name}", "/s", results[name])
            yield row(f"accounts.{name}_ratio", "  ratio to the raw hashes", "x", ratios(results[name], results["raw"]))
        yield from storm(ours)
    psql(database, "delete from users where username like 'load-%'")


def storm(ours):
    """Readers at a constant rate: alone, and while 200 log in at the same time, again and again."""
    settings = {"RATE": 200, "DURATION": "10s", "STAFF_USER": "user1", "STAFF_PASSWORD": PASSWORD}
    found = interleave(2, {"idle": lambda: k6("browse.js", ours, WHAT="list", **settings), "storm": lambda: k6("logins.js", ours, VUS=200, **settings)})
    p99 = {name: [each["http_req_duration{what:list}"]["p(99)"] for each in found[name]] for name in found}
    yield row("accounts.list_idle", "list of 1,000 at 200 requests/s (k6): 99 of 100 within", "ms", p99["idle"])
    yield row("accounts.list_storm", "  while 200 log in", "ms", p99["storm"])
    yield row("accounts.storm_ratio", "  ratio", "x", ratios(p99["storm"], p99["idle"]))
