"""Latency at a fixed rate (k6, open model): requests are sent on schedule, whether or not earlier ones have finished.

The saturation rate is the highest rate at which at least 99.5 % of the requests finished in time. It includes k6
itself, which competes with the server for the same cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from load import K6Summary, k6
from options import Options
from rows import Row, row
from servers import PASSWORD, Server, catalogue, running, start_baseline, start_testshop

RATES = [500, 1_000, 2_000, 3_000, 4_000, 6_000, 8_000]
STAFF = {"STAFF_USER": "user1", "STAFF_PASSWORD": PASSWORD}


def at_rate(server: Server, rate: int, seconds: int, what: str, account: Mapping[str, str] = STAFF) -> K6Summary:
    return k6("browse.js", server, RATE=rate, DURATION=f"{seconds}s", WHAT=what, **account)


def saturation_rate(server: Server, seconds: int = 5) -> int:
    saturation = RATES[0]
    for rate in RATES:
        requests = at_rate(server, rate, seconds, "list").metrics["http_reqs"]["count"]
        if requests < 0.995 * rate * seconds:
            break
        saturation = rate
    return saturation


def run(options: Options) -> Iterator[Row]:
    testshop = start_testshop(catalogue(100))
    with running(testshop):
        saturation = saturation_rate(testshop)
        yield row("latency.saturation", "highest rate that k6 and the server sustain", "req/s", [saturation])
        half = saturation // 2
        for what, title in [("list", "list"), ("unchanged", "304"), ("one", "one product")]:
            summaries = [at_rate(testshop, half, 6, what) for _ in range(3)]
            durations = [summary.metrics[f"http_req_duration{{what:{what}}}"] for summary in summaries]
            for key, stat, name in [("median", "med", "median"), ("p99", "p(99)", "p99")]:
                values = [duration[stat] for duration in durations]
                yield row(f"latency.{key}.{what}", f"{title} at {half:,} requests/s, {name}", "ms", values)
        baseline = start_baseline(testshop.get("/api/products/")[1])
        with running(baseline):
            summaries = [at_rate(baseline, half, 6, "list", {"TOKEN": "none"}) for _ in range(3)]
        values = [summary.metrics["http_req_duration{what:list}"]["p(99)"] for summary in summaries]
        yield row("latency.baseline", "  baseline list, same k6, p99", "ms", values)
        scripts: dict[str, dict[str, object]] = {
            "smoke.js": {},
            "mixed.js": {"DURATION": "8s", **STAFF},
            "logins.js": {"DURATION": "8s", "VUS": 50},
            "export.js": {"DURATION": "8s"},
            "spike.js": {"RATE": half},
            "soak.js": {"DURATION": "8s"},
        }
        for script, settings in scripts.items():
            summary = k6(script, testshop, **settings)
            title = f"{script}: {summary.metrics['http_reqs']['count']:,} requests, all thresholds passed"
            yield row(f"latency.script.{script}", title, "", [float(summary.passed)])
