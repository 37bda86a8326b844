"""Imports of 100,000 products (all new, all changed, all unchanged), and the wait of a concurrent writer."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator

from load import timed
from options import Options
from rows import Row, row
from servers import Server, TestShop, catalogue, psql, running, start_testshop

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
PRODUCTS = 100_000


class ConcurrentWriter(threading.Thread):
    """Creates a tag every 20 ms, and records the longest wait in seconds."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.stop = threading.Event()
        self.longest = 0.0

    def run(self) -> None:
        while not self.stop.wait(0.02):
            self.longest = max(self.longest, timed(self.create_tag))

    def create_tag(self) -> None:
        tag = {"name": f"beside {time.monotonic()}"}
        self.server.request("POST", "/api/tags/", tag, self.server.headers)


def import_file(testshop: TestShop, content_type: str, body: bytes, outcome: str) -> tuple[float, float, float]:
    """Duration (s), peak memory above idle (MiB) and longest wait of the concurrent writer (s)."""
    idle, writer = testshop.memory(), ConcurrentWriter(testshop)
    testshop.reset_peak_memory()
    writer.start()
    started = time.monotonic()
    headers = {**testshop.headers, "Content-Type": content_type}
    response, report = testshop.request("POST", "/api/products/import/", body, headers)
    duration = time.monotonic() - started
    writer.stop.set()
    writer.join()
    assert response.status == 200 and json.loads(report)[outcome] == PRODUCTS, report[:300]
    return duration, testshop.memory("VmHWM") - idle, writer.longest


def run(options: Options) -> Iterator[Row]:
    database = catalogue(PRODUCTS)
    testshop = start_testshop(database)
    with running(testshop):
        workbook = testshop.get("/api/products/export/")[1]
        table = testshop.get("/api/products/export/?format=csv")[1]
        largest = psql(database, "select max(id) from products")
        new = re.sub(rb"\r\n\d+,", b"\r\n,", table)
        delete_new = f"delete from products where id > {largest}"
        # key, title, content type, body, expected outcome of every row, statement before each import
        files = [
            ("csv_new", "CSV, all new", "text/csv", new, "created", delete_new),
            ("xlsx_changed", "XLSX, all changed", XLSX, workbook, "updated", "update products set price = price + 1"),
            ("xlsx_unchanged", "XLSX, all unchanged", XLSX, workbook, "unchanged", "select 1"),
        ]
        for key, title, content_type, body, outcome, before in files:
            samples = []
            for _ in range(min(options.rounds, 2)):
                psql(database, before)
                psql(database, "vacuum analyze products, product_tags")
                samples.append(import_file(testshop, content_type, body, outcome))
            times, peaks, waits = zip(*samples, strict=True)
            what = f"import of 100,000 products ({len(body) / 1e6:.1f} MB {title})"
            yield row(f"imports.time.{key}", what, "s", times)
            yield row(f"imports.memory.{key}", "  peak memory above idle", "MiB", peaks)
            yield row(f"imports.wait.{key}", "  longest wait of a concurrent write", "s", waits)
        psql(database, f"{delete_new}; delete from tags where name like 'beside %'")
        psql(database, "vacuum analyze")
