"""Logins and registrations with 600,000 iterations, and what readers notice of 200 who log in at once.

The raw figure is examples/hashing.rs: as many threads as the shop gives to hashing do nothing else.
"""
import re, subprocess, threading

from load import interleave, k6, ratios, values, wrk
from rows import row
from servers import EXAMPLES, PASSWORD, SHOP, catalogue, environment, psql, serving, shop

ITERATIONS = 600_000


def raw(seconds):
    out = subprocess.run([EXAMPLES / "hashing", str(ITERATIONS), str(seconds)], check=True, capture_output=True, text=True).stdout
    return float(re.search(r"([\d.]+) hashes/s", out).group(1))


def run(bench):
    database, seconds = catalogue(1_000), max(bench.seconds, 4)
    subprocess.run([SHOP, "set-password", "user1"], env=environment(database, PBKDF2_ITERATIONS=ITERATIONS), input=PASSWORD, text=True, check=True, capture_output=True)
    with serving(shop(database, PBKDF2_ITERATIONS=ITERATIONS)) as ours:
        measures = {
            "raw": lambda: raw(seconds),
            "login": lambda: wrk(ours, "/api/login/", connections=4, seconds=seconds, script="login.lua"),
            "register": lambda: wrk(ours, "/api/register/", connections=4, seconds=seconds, script="register.lua"),
        }
        results = interleave(min(bench.rounds, 5), measures)
        yield row("accounts.raw", "hashes by the same threads, and nothing else", "/s", results["raw"], reference=True)
        for name in ("login", "register"):
            yield row(f"accounts.{name}", f"{name}", "/s", values(results[name], "rate"))
            yield row(f"accounts.{name}_ratio", "  ratio to the raw hashes", "x", ratios(values(results[name], "rate"), results["raw"]))
        yield from storm(bench, ours)
    psql(database, "delete from users where username like 'load-%'")


def storm(bench, ours):
    """Readers at a constant rate: alone, and while 200 log in at the same time, again and again."""
    settings = {"RATE": 200, "DURATION": "10s", "WHAT": "list"}

    def stormy():
        stop = threading.Event()

        def log_in():
            while not stop.is_set():
                reply, _ = ours.request("POST", "/api/login/", {"username": "user1", "password": PASSWORD})
                assert reply.status in (200, 503), reply.status

        threads = [threading.Thread(target=log_in, daemon=True) for _ in range(200)]
        for thread in threads:
            thread.start()
        found = k6("browse.js", ours, **settings)
        stop.set()
        for thread in threads:
            thread.join()
        return found

    results = interleave(2, {"idle": lambda: k6("browse.js", ours, **settings), "storm": stormy})
    p99 = {name: [found["http_req_duration{what:list}"]["p(99)"] for found in results[name]] for name in results}
    yield row("accounts.list_idle", "list of 1,000 at 200 requests/s (k6): 99 of 100 within", "ms", p99["idle"])
    yield row("accounts.list_storm", "  while 200 log in", "ms", p99["storm"])
    yield row("accounts.storm_ratio", "  ratio", "x", ratios(p99["storm"], p99["idle"]))
