#!/usr/bin/env python3
"""Rebuilds the tables of REPORT.md and SECURITY.md, and the plots under loadtest/plots, from the raw figures under loadtest/results.

    make report        (python3 loadtest/report.py; brings matplotlib into a venv under target/)

The words are written by hand; what stands between <!-- table NAME --> and <!-- end --> is made here.
"""
import json, os, re, statistics, subprocess, sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "bench"))
from rows import show  # noqa: E402

ROOT, RESULTS, PLOTS, VENV = HERE.parent, HERE / "results", HERE / "plots", HERE.parent / "target/report"
MATPLOTLIB = "matplotlib==3.10.*"
# what stands in the plots' ink is turned by the reader's colour scheme: on white and on black alike
INK = "#123456"
STYLE = "<style>:root{color:#1f2328}@media(prefers-color-scheme:dark){:root{color:#e6edf3}}</style>"
COLOURS = ["#d97706", "#2563eb", "#059669", "#9333ea", "#6b7280", "#dc2626"]

# work, key (with its x), how it must compare, target
TARGETS = [
    ("cached list of 100, 64 clients, strict freshness: of the limit's requests/s", "list.ratio.identity", 100, ">=", 0.85),
    ("  server's CPU for each, of the limit's", "list.cpu_ratio.identity", 100, "<=", 1.5),
    ("304: of the limit answering an empty body", "list.ratio.304", 100, ">=", 0.85),
    ("the same list with a write every 10 ms: of its rate without", "writes.ratio.a_write_every_10_ms", None, ">=", 0.7),
    ("  fills a write", "writes.fills.a_write_every_10_ms", None, "<=", 1.05),
    ("  stale lists", "writes.stale.a_write_every_10_ms", None, "<=", 0),
    ("cached list, against axum + sqlx", "peers.ratio.axum", None, ">=", 2.2),
    ("cached list, against Django", "peers.ratio.django", None, ">=", 30),
    ("list of 100 with a write every 10 ms, against axum + sqlx", "writes.peers.ratio.axum", 100, ">=", 4),
    ("list of 1,000 with a write every 10 ms, against axum + sqlx", "writes.peers.ratio.axum", 1_000, ">=", 4),
    ("99 of 100 lists at half of the saturation rate (k6), ms", "latency.p(99).list", None, "<=", 3),
    ("cold list of 10,000, of psql's time", "cold.ratio", 10_000, "<=", 1.2),
    ("cold list of 100,000, of psql's time", "cold.ratio", 100_000, "<=", 1.2),
    ("first byte of the streamed list of 1,000,000, s", "cold.first", 1_000_000, "<=", 0.05),
    ("export of 100,000: of writer and statement by themselves", "export.ratio", 100_000, "<=", 1.1),
    ("export of 1,000,000: of writer and statement by themselves", "export.ratio", 1_000_000, "<=", 1.1),
    ("  memory over idle, MiB", "export.memory", 1_000_000, "<=", 32),
    ("export of 100,000: Fastify against TestShop", "peers.export_ratio.fastify", None, ">=", 2),
    ("export of 100,000: FastAPI against TestShop", "peers.export_ratio.fastapi", None, ">=", 2),
    ("export of 100,000: Django against TestShop", "peers.export_ratio.django", None, ">=", 10),
    ("logins: of what the hashing threads do by themselves", "accounts.login_ratio", None, ">=", 0.95),
    ("list's p99 while 200 log in, of its own", "accounts.storm_ratio", None, "<=", 2),
    ("8,000 connections at rest, KiB each", "connections.memory", 8_000, "<=", 12),
]


# what scripts/hard.py saw: of another shape than what the bench measured
HARD = RESULTS / "hard.json"


def load():
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json")) if path != HARD}


def hard():
    return json.loads(HARD.read_text()) if HARD.exists() else {"rows": [], "samples": []}


def index(results):
    rows = {}
    for name, result in results.items():
        for line in result["rows"]:
            rows[line["key"], line.get("x")] = {**line, "case": name}
    return rows


def middle(line):
    return statistics.median(line["values"])


# -- tables --------------------------------------------------------------------------------------------------

def targets(results, rows):
    yield "| work | target | measured | spread | |"
    yield "|---|---|---|---|---|"
    for what, key, x, compare, target in TARGETS:
        what, line = what.replace("  ", "&nbsp;&nbsp;"), rows.get((key, x))
        if not line:
            yield f"| {what} | {compare} {target:g} | not measured | | |"
            continue
        found = middle(line)
        met = found >= target if compare == ">=" else found <= target
        verdict = "not judged: noisy" if results[line["case"]]["noise"] else "met" if met else "**missed**"
        yield f"| {what} | {compare} {target:g} | {show(found)} | {show(min(line['values']))} .. {show(max(line['values']))} | {verdict} |"


def short(results, rows):
    """Each subject in a line."""
    def seen(key, x=None):
        line = rows.get((key, x))
        if not line:
            return "(not measured yet)"
        values = line["values"]
        spread = f" ({show(min(values))} .. {show(max(values))})" if results[line["case"]]["noise"] and len(values) > 1 else ""
        return show(middle(line)) + spread
    yield "| subject | what was done | what it is worth here; with its spread where the machine was noisy |"
    yield "|---|---|---|"
    yield (f"| few queries | a list costs one statement, whatever it holds; a cached one none for its rows | {seen('layers.one_statement')} ms for a list of 100, "
           f"with N+1 {seen('layers.n_plus_one')} ms; {seen('list.per_thousand.statements', 100)} statements for 1,000 cached lists |")
    yield (f"| the cache's effect | finished bytes in the process and in Redis, found by the version that PostgreSQL gives after the request has arrived, so never stale "
           f"| list of 100: {seen('layers.cache.full', 100)} requests/s, with Redis alone {seen('layers.cache.redis', 100)}, without any {seen('layers.cache.off', 100)}; "
           f"{seen('writes.stale.a_write_every_10_ms')} stale lists beside a write every 10 ms |")
    yield (f"| asynchrony | nothing waits on a thread: one flight for all who want the same list, version reads shared, passwords and workbooks on threads of their own "
           f"| one product while a list of 100,000 is made: 99 of 100 within {seen('layers.beside_a_fill')} ms, otherwise {seen('layers.beside_nothing')} |")
    yield (f"| Docker | the binary on distroless/cc, no shell, no root, read-only; health by the binary itself "
           f"| {seen('containers.ratio.inside')} of the rate outside |")
    yield (f"| the change in performance | the same shop as Django is commonly written, side by side "
           f"| cached list {seen('peers.ratio.django')} times as fast, beside a write every 10 ms {seen('writes.peers.ratio.django', 100)} times, export of 100,000 {seen('peers.export_ratio.django')} times |")


def case(result):
    yield "| what | median | | spread |"
    yield "|---|---:|---|---|"
    for line in result["rows"]:
        spread = f"{show(min(line['values']))} .. {show(max(line['values']))}" if len(line["values"]) > 1 else ""
        yield f"| {line['what'].replace('  ', '&nbsp;&nbsp;')} | {show(middle(line))} | {line['unit']} | {spread} |"
    yield ""
    noise = f" Too noisy to judge by: {result['noise']}." if result["noise"] else ""
    yield f"`{result['command']}`, {result['when']}, {result['seconds']} s; the host gave {result['steal']:.0%} of the time to others.{noise}"


def machine(results):
    found = next(iter(results.values()))["machine"]
    yield "| | |"
    yield "|---|---|"
    for name, value in found.items():
        if value:
            yield f"| {name} | {value} |"


def promises(seen):
    yield "| promise | seen | verdict |"
    yield "|---|---|---|"
    for row in seen["rows"]:
        yield f"| {row['promise']} | {row['numbers'].replace('|', '/')} | {row['verdict']} |"
    yield ""
    for told in sorted({f"`{row['command']}`: {row['when']}, {row['seconds']} s, {row['machine']}" for row in seen["rows"]}):
        yield f"- {told}"


def rebuild(results):
    rows, seen = index(results), hard()

    def table(found):
        name = found.group(1)
        known = {"short": lambda: short(results, rows), "targets": lambda: targets(results, rows), "machine": lambda: machine(results), "hard": lambda: promises(seen)}
        lines = known[name]() if name in known else case(results[name]) if name in results else ["(not measured yet)"]
        return f"<!-- table {name} -->\n" + "\n".join(lines) + "\n<!-- end -->"

    for path in (ROOT / "REPORT.md", ROOT / "SECURITY.md"):
        path.write_text(re.sub(r"<!-- table (\S+) -->\n.*?<!-- end -->", table, path.read_text(), flags=re.S))


# -- plots ---------------------------------------------------------------------------------------------------

def plot(name, draw, size=(7, 3.2)):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
                         **{key: INK for key in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor")}})
    figure, axes = plt.subplots(figsize=size)
    draw(axes)
    PLOTS.mkdir(exist_ok=True)
    path = PLOTS / f"{name}.svg"
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    text = path.read_text().replace(INK, "currentColor")
    path.write_text(re.sub(r"(<svg [^>]*>)", rf"\1{STYLE}", text, count=1))


def bars(rows, keys, unit, x=None):
    """Horizontal bars of medians with their spread, on a scale of powers of ten."""
    def draw(axes):
        found = [(label, rows[key, x]) for label, key in keys if (key, x) in rows]
        for place, (label, line) in enumerate(reversed(found)):
            value = middle(line)
            axes.barh(place, value, color=COLOURS[0] if label == "TestShop" else COLOURS[4], height=0.6)
            axes.plot([min(line["values"]), max(line["values"])], [place, place], color=INK, linewidth=1)
            axes.text(max(line["values"]) * 1.1, place, show(value), va="center")
        axes.set_yticks(range(len(found)), [label for label, _ in reversed(found)])
        axes.set_xscale("log")
        axes.set_xlabel(unit)
        axes.margins(x=0.2)
    return draw


def lines(rows, keys, x_label, y_label):
    """Curves of medians against x, both on scales of powers of ten."""
    def draw(axes):
        for number, (label, key) in enumerate(keys):
            points = sorted((x, middle(line)) for (name, x), line in rows.items() if name == key and x)
            if points:
                axes.plot(*zip(*points), marker="o", color=COLOURS[number], label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if axes.lines:
            axes.legend(frameon=False, labelcolor=INK)
    return draw


def draw_all(rows):
    everyone = ["django", "fastapi", "fastify", "axum", "TestShop"]
    names = {"django": "Django + DRF", "fastapi": "FastAPI + asyncpg", "fastify": "Fastify + pg", "axum": "axum + sqlx"}
    label = lambda name: names.get(name, name)
    plot("peers", bars(rows, [("bare hyper", "peers.rate.limit"), *((label(name), f"peers.rate.{name}") for name in reversed(everyone))], "requests/s, cached list of 100"))
    plot("writes", bars(rows, [(label(name), f"writes.peers.rate.{name}") for name in reversed(everyone)], "requests/s, list of 100, a write every 10 ms", 100), size=(7, 2.8))
    plot("exports", bars(rows, [(label(name), f"peers.export.{name}") for name in reversed(everyone)], "seconds, export of 100,000 products"), size=(7, 2.8))
    plot("cold", lines(rows, [("TestShop, last byte", "cold.last"), ("psql, the same statement", "cold.psql"), ("TestShop, first byte", "cold.first")], "products", "seconds, cold list"))
    plot("memory", lines(rows, [("cold list", "cold.memory"), ("export", "export.memory")], "products", "MiB over idle, at most"))
    plot("export", lines(rows, [("TestShop", "export.last"), ("rust_xlsxwriter alone", "export.workbook"), ("the same version again", "export.again")], "products", "seconds, export"))
    plot("connections", lines(rows, [("TestShop", "connections.rate"), ("bare hyper", "connections.limit")], "connections", "requests/s"))
    plot("size", lines(rows, [("TestShop", "list.rate.identity"), ("bare hyper", "list.limit.identity"), ("TestShop, gzip", "list.rate.gzip"), ("TestShop, 304", "list.rate.304")], "products in the list", "requests/s"))


def soak(samples):
    """What the server that is never killed held while everything else failed."""
    def draw(axes):
        minutes = [sample[0] / 60 for sample in samples]
        for number, (label, values) in enumerate([("memory, MiB", [sample[1] / 1024 for sample in samples]), ("descriptors", [sample[2] for sample in samples]),
                                                  ("connections to PostgreSQL, of all servers", [sample[3] for sample in samples]),
                                                  ("exports on disk, KiB", [sample[4] for sample in samples])]):
            axes.plot(minutes, values, color=COLOURS[number], label=label, linewidth=1)
        axes.set_xlabel("minutes")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, labelcolor=INK)
    plot("soak", draw)


def main():
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        if os.environ.get("REPORT_VENV"):
            raise
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([VENV / "bin/pip", "install", "-q", "--disable-pip-version-check", MATPLOTLIB], check=True)
        return subprocess.run([VENV / "bin/python", __file__], env={**os.environ, "REPORT_VENV": "1"}).returncode
    results = load()
    draw_all(index(results))
    if hard()["samples"]:
        soak(hard()["samples"])
    rebuild(results)


if __name__ == "__main__":
    sys.exit(main())
