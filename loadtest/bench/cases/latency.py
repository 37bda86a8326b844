"""Latency at a given rate (k6, open model): a request is sent when it is due, whether or not the ones before it were answered.

Saturation is the highest rate at which k6 got all but one of 200 requests done in time, k6 itself included: it competes with the server for the same cores.
"""
from load import k6
from rows import row
from servers import PASSWORD, catalogue, limit, serving, shop

RATES = [500, 1_000, 2_000, 3_000, 4_000, 6_000, 8_000]
STAFF = {"STAFF_USER": "user1", "STAFF_PASSWORD": PASSWORD}


def at_rate(server, rate, seconds, what="list", account=STAFF):
    return k6("browse.js", server, RATE=rate, DURATION=f"{seconds}s", WHAT=what, **account)


def kept_up(found, rate, seconds):
    return found["http_reqs"]["count"] >= 0.995 * rate * seconds


def run(bench):
    database = catalogue(100)
    with serving(shop(database)) as ours:
        saturation = RATES[0]
        for rate in RATES:
            if not kept_up(at_rate(ours, rate, 5), rate, 5):
                break
            saturation = rate
        yield row("latency.saturation", "highest rate that k6 and the server kept up with", "req/s", [saturation])
        half = saturation // 2
        for what in ("list", "unchanged", "one"):
            found = [at_rate(ours, half, 6, what)[f"http_req_duration{{what:{what}}}"] for _ in range(3)]
            for key, words in [("med", "median"), ("p(99)", "99 of 100 within")]:
                yield row(f"latency.{key}.{what}", f"{what} at {half:,} requests/s: {words}", "ms", [each[key] for each in found])
        with serving(limit(ours.get("/api/products/")[1])) as bare:
            found = [at_rate(bare, half, 6, account={"TOKEN": "none"})["http_req_duration{what:list}"] for _ in range(3)]
        yield row("latency.limit", "  the limit's list, by the same k6: 99 of 100 within", "ms", [each["p(99)"] for each in found])
        scripts = {"smoke.js": {}, "mixed.js": STAFF, "logins.js": {"VUS": 50}, "export.js": {}, "spike.js": {"RATE": half}, "soak.js": {}}
        for script, settings in scripts.items():
            found = k6(script, ours, **({} if script in ("smoke.js", "spike.js") else {"DURATION": "8s"}), **settings)
            yield row(f"latency.script.{script}", f"{script}: {found['http_reqs']['count']:,} requests, all its thresholds held", "", [float(found["passed"])])
