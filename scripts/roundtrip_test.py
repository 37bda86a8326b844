#!/usr/bin/env python3
"""Sends exports through other programs and imports what they save: every row comes back unchanged.

The programs are openpyxl and pandas (PyPI), SheetJS and ExcelJS (npm), and LibreOffice (Debian). A program that cannot
be installed is skipped with a message. TRIPS names what a program itself loses; anything else fails.
"""

import json
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roundtrip.catalogue import EDGE_CASES, csv_of
from roundtrip.programs import Unavailable, converter
from test_server import PASSWORD, STAFF, rerun_with_services, running_server

MEDIA_TYPES = {
    "csv": "text/csv",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "ods": "application/octet-stream",
}
DEMO_PRODUCTS = 500
MAX_ATTEMPTS = 20

Product = dict[str, Any]
# a product of EDGE_CASES, or `*` for any product, with a field
Value = tuple[str, str]


@dataclass(frozen=True)
class Trip:
    """A file of the first format, which a program saves in the following ones."""

    program: str
    formats: tuple[str, ...]
    # values that the program changes, with the reason
    losses: dict[Value, str] = field(default_factory=dict)
    # part of the error message, if the import rejects the file as a whole
    rejection: str = ""

    def __str__(self) -> str:
        return f"{self.program} {'→'.join(self.formats)}"


# openpyxl, which pandas writes workbooks with, takes such texts for a formula and an error
WRITTEN_BY_PANDAS = {
    ("formula", "description"): "=1+1 becomes a formula without a result",
    ("error", "description"): "#N/A becomes an error value",
}
# the text stands for another one in a workbook (ST_Xstring), which these programs do not decode or encode
ESCAPE = {("escape", "description"): "_x0041_ is read or written as another text"}
# LibreOffice reads texts of a CSV file as what they look like
LIKE_NUMBERS = {(name, "description"): "the text becomes a number" for name in ("leading zeros", "exponent", "decimal")}
LIKE_VALUES = LIKE_NUMBERS | {
    (name, "description"): "the text becomes a date or a boolean" for name in ("date", "boolean")
}
# an export to CSV guards texts that begin like a formula with an apostrophe, which stays in a workbook
GUARDED_IN_CSV = {
    (name, "description"): "the guard of the CSV file is part of the text"
    for name in ("formula", "plus", "minus", "at sign", "apostrophe")
}

TRIPS = [
    Trip("openpyxl", ("xlsx", "xlsx")),
    Trip("pandas", ("xlsx", "xlsx"), WRITTEN_BY_PANDAS),
    Trip("pandas", ("csv", "csv")),
    Trip(
        "pandas",
        ("xlsx", "csv"),
        ESCAPE | {("microseconds", "created_at"): "openpyxl rounds to milliseconds, and pandas writes six decimals"},
    ),
    Trip("pandas", ("csv", "xlsx"), WRITTEN_BY_PANDAS | GUARDED_IN_CSV | ESCAPE),
    Trip("sheetjs", ("xlsx", "xlsx"), ESCAPE),
    Trip("sheetjs", ("xlsx", "csv"), {("end of year", "created_at"): "23:59:59.999 is written as 23:59:00"}),
    Trip("sheetjs", ("csv", "xlsx"), GUARDED_IN_CSV | ESCAPE),
    Trip("exceljs", ("xlsx", "xlsx")),
    Trip("libreoffice", ("xlsx", "xlsx")),
    Trip("libreoffice", ("xlsx", "csv")),
    Trip("libreoffice", ("csv", "xlsx"), GUARDED_IN_CSV | LIKE_VALUES),
    Trip("libreoffice", ("csv", "csv"), LIKE_NUMBERS),
    Trip("libreoffice", ("xlsx", "ods"), rejection=".ods"),
    Trip("libreoffice", ("xlsx", "ods", "xlsx"), {("tab", "description"): "ODS drops tabs"}),
]


class Shop:
    """The API of a running server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.headers: dict[str, str] = {}
        credentials = json.dumps({"username": STAFF, "password": PASSWORD}).encode()
        login = json.loads(self.send("/api/login/", credentials, "application/json"))
        self.headers = {"Authorization": f"Bearer {login['token']}"}

    def send(self, path: str, body: bytes | None = None, media_type: str = "") -> bytes:
        """Returns the body of a successful response. Repeats the request while the server is overloaded."""
        headers = self.headers | ({"Content-Type": media_type} if media_type else {})
        request = urllib.request.Request(self.url + path, body, headers)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                with urllib.request.urlopen(request, timeout=120) as response:
                    content: bytes = response.read()
                return content
            except urllib.error.HTTPError as error:
                if error.code != 503 or attempt == MAX_ATTEMPTS:
                    raise
                time.sleep(1)
        raise AssertionError("the last attempt returns or raises")

    def export(self, extension: str) -> bytes:
        return self.send(f"/api/products/export/?format={extension}")

    def products(self) -> list[Product]:
        listed: list[Product] = json.loads(self.send("/api/products/"), parse_float=str)
        return listed

    def import_file(self, path: Path, query: str = "") -> dict[str, Any]:
        """Returns the report of an import, or `detail` with the error message of a rejected file."""
        media_type = MEDIA_TYPES[path.suffix[1:]]
        try:
            report: dict[str, Any] = json.loads(
                self.send(f"/api/products/import/{query}", path.read_bytes(), media_type)
            )
        except urllib.error.HTTPError as error:
            report = json.loads(error.read())
        return report


def differences(before: list[Product], after: list[Product]) -> Iterator[Value]:
    """Yields the values that differ, and the products that are missing or new."""
    names = {product["id"]: product["name"] for product in before}
    products = {product["id"]: product for product in after}
    for product in before:
        other = products.pop(product["id"], {})
        yield from ((product["name"], key) for key in product if other.get(key) != product[key])
    yield from ((names.get(number, "new"), "id") for number in products)


def wrong_rows(report: dict[str, Any], before: list[Product]) -> Iterator[Value]:
    """Yields the values of rows that the import skipped. Rows of a file are in the order of the list."""
    for error in report["errors"]:
        name = before[error["row"] - 2]["name"]
        yield from ((name, key) for key in error if key not in ("row", "sheet"))


def run_trip(trip: Trip, shop: Shop, directory: Path, before: list[Product], original: Path) -> list[str]:
    """Returns what is wrong with a trip; the catalogue is as before."""
    convert = converter(trip.program)
    path = directory / f"products.{trip.formats[0]}"
    path.write_bytes(shop.export(trip.formats[0]))
    for step, extension in enumerate(trip.formats[1:], 1):
        target = directory / f"{trip.program}-{step}" / f"products.{extension}"
        target.parent.mkdir(exist_ok=True)
        convert(path, target)
        path = target
    report = shop.import_file(path, "?on_error=skip")
    if "detail" in report:
        is_expected = bool(trip.rejection) and trip.rejection in report["detail"]
        return [] if is_expected else [f"rejected: {report['detail']}"]
    changed = {*differences(before, shop.products()), *wrong_rows(report, before)}
    restored = shop.import_file(original)
    wrong = [f"{name}: {key} changed" for name, key in sorted(changed - trip.losses.keys())]
    wrong += [f"{name}: {key} is no longer lost" for name, key in sorted(trip.losses.keys() - changed)]
    rows = {name for name, _ in changed}
    if report["unchanged"] != len(before) - len(rows):
        wrong.append(f"{report['unchanged']} of {len(before)} rows are unchanged, {len(rows)} differ")
    if list(differences(before, shop.products())):
        wrong.append(f"the original file does not restore the catalogue: {restored}")
    return wrong


def run_all(shop: Shop, directory: Path) -> tuple[list[str], list[str], list[str]]:
    """Returns the trips that passed, those that were skipped, and what is wrong with the others."""
    edge_cases = directory / "edge-cases.csv"
    edge_cases.write_text(csv_of(EDGE_CASES), newline="")
    created = shop.import_file(edge_cases)
    assert created.get("created") == len(EDGE_CASES), created
    before, original = shop.products(), directory / "original.csv"
    original.write_bytes(shop.export("csv"))
    passed, skipped, failures = [], [], []
    for trip in TRIPS:
        folder = directory / str(trip).replace(" ", "-")
        folder.mkdir()
        try:
            wrong = run_trip(trip, shop, folder, before, original)
        except Unavailable as error:
            print(f"SKIPPED: {trip} was NOT tested: {error}", flush=True)
            skipped.append(str(trip))
            continue
        for line in wrong:
            print(f"FAILED: {trip}: {line}", flush=True)
        failures += wrong
        passed += [] if wrong else [str(trip)]
        if not wrong:
            print(f"passed: {trip}", flush=True)
    return passed, skipped, failures


def main() -> int:
    rerun_with_services("roundtrip")
    with tempfile.TemporaryDirectory() as directory, running_server(products=DEMO_PRODUCTS) as (url, _server):
        passed, skipped, failures = run_all(Shop(url), Path(directory))
    if failures:
        return 1
    rows = DEMO_PRODUCTS + len(EDGE_CASES)
    lost = sum(len(trip.losses) for trip in TRIPS if str(trip) in passed)
    # a row of the table of stress.py
    observed = (
        f"{rows} rows, {len(passed)} round trips; {lost} values that the programs lose, {len(skipped)} trips skipped"
    )
    print(f"RESULT | exports that other programs save come back unchanged | {observed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
