"""Files of 100,000 products brought in: all new, all changed, all as they are; and what another writer waits meanwhile."""
import json, re, threading, time

from load import timed
from rows import row
from servers import catalogue, psql, serving, shop

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
PRODUCTS = 100_000


class Beside(threading.Thread):
    """Makes a tag every 20 ms and remembers the longest wait, in seconds."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.stop, self.longest = server, threading.Event(), 0.0

    def run(self):
        while not self.stop.wait(0.02):
            tag = {"name": f"beside {time.monotonic()}"}
            self.longest = max(self.longest, timed(lambda: self.server.request("POST", "/api/tags/", tag, self.server.headers)))


def run(bench):
    database = catalogue(PRODUCTS)
    with serving(shop(database)) as ours:
        workbook, table = ours.get("/api/products/export/")[1], ours.get("/api/products/export/?format=csv")[1]
        largest = psql(database, "select max(id) from products")
        new = re.sub(rb"\r\n\d+,", b"\r\n,", table)
        kinds = {
            "CSV, all new": ("text/csv", new, "created", f"delete from products where id > {largest}"),
            "XLSX, all changed": (XLSX, workbook, "updated", "update products set price = price + 1"),
            "XLSX, all unchanged": (XLSX, workbook, "unchanged", "select 1"),
        }
        for name, (content_type, body, outcome, before) in kinds.items():
            times, waits, peaks = [], [], []
            for _ in range(min(bench.rounds, 2)):
                psql(database, before)
                psql(database, "vacuum analyze products, product_tags")
                idle, beside = ours.memory(), Beside(ours)
                ours.forget_peak()
                beside.start()
                began = time.monotonic()
                reply, report = ours.request("POST", "/api/products/import/", body, {**ours.headers, "Content-Type": content_type})
                times.append(time.monotonic() - began)
                beside.stop.set()
                beside.join()
                assert reply.status == 200 and json.loads(report)[outcome] == PRODUCTS, report[:300]
                peaks.append(ours.memory("VmHWM") - idle)
                waits.append(beside.longest)
            yield row(f"imports.time.{name}", f"import of 100,000 products ({len(body) / 1e6:.1f} MB {name})", "s", times)
            yield row(f"imports.memory.{name}", "  peak memory over idle", "MiB", peaks)
            yield row(f"imports.wait.{name}", "  the longest that another write waited", "s", waits)
        psql(database, f"delete from products where id > {largest}; delete from tags where name like 'beside %'")
        psql(database, "vacuum analyze")
