"""Moments, and the options that create categories and ids."""

from collections.abc import Iterator

from .case import BALL, BOOK, CAFE, NOVEL, TITLES, Case, Json, changed, new, table
from .workbook import number, products, row, serial, sheet, text, workbook


def moments() -> Iterator[Case]:
    for name, value in (
        ("cut-to-seconds", "2026-11-23 13:01:47"),
        ("rounded-to-seconds", "2026-11-23T13:01:48Z"),
        ("cut-to-milliseconds", "2026-11-23T13:01:47.542Z"),
        ("rounded-to-milliseconds", "2026-11-23 13:01:47.543"),
        ("tenths", "2026-11-23 13:01:47.5"),
        ("minutes", "2026-11-23 13:01"),
        ("rounded-to-minutes", "2026-11-23 13:02"),
        ("exact", "2026-11-23T13:01:47.542885Z"),
        ("offset", "2026-11-23T15:01:47+02:00"),
        ("empty", ""),
    ):
        yield Case(f"moments/{name}.csv", table(["ID", "Created at"], ["3", value]).encode(), unchanged=1)
    for name, value, stored in (
        ("other-second", "2026-11-23 13:01:49", "2026-11-23T13:01:49Z"),
        ("other-millisecond", "2026-11-23T13:01:47.544Z", "2026-11-23T13:01:47.544000Z"),
        ("other-microsecond", "2026-11-23T13:01:47.542886Z", "2026-11-23T13:01:47.542886Z"),
        ("other-day", "2026-11-22", "2026-11-22T00:00:00Z"),
    ):
        data = table(["ID", "Created at"], ["3", value]).encode()
        yield Case(f"moments/{name}.csv", data, updated=1, products={"3": {"created_at": stored}})
    for name, value in (
        ("american", "11/23/2026 1:01 PM"),
        ("german", "23.11.2026 13:01"),
        ("words", "yesterday"),
        ("no-such-day", "2026-02-30"),
        ("year-10000", "10000-01-01T00:00:00Z"),
        ("hashes", "########"),
    ):
        data = table(["ID", "Created at"], ["3", value], ["1", "2023-08-08T12:00:00Z"]).encode()
        errors = [{"row": 2, "created_at": "Datetime has wrong format."}]
        yield Case(f"moments/{name}.csv", data, unchanged=1, errors=errors)
    created = table(TITLES, new("Now"), changed(new("Then"), created_at="1999-12-31")).encode()
    yield Case("moments/created.csv", created, created=2, products={"6": {"created_at": "1999-12-31T00:00:00Z"}})


def options() -> Iterator[Case]:
    data = table(
        TITLES, BALL, changed(new("Lamp"), category="Garden"), changed(new("Hose"), category="Garden")
    ).encode()
    errors = [{"row": row, "category_name": "Garden"} for row in (3, 4)]
    yield Case("options/category-missing.csv", data, unchanged=1, errors=errors)
    garden = {"5": {"category_name": "Garden"}, "6": {"category_name": "Garden"}}
    query = "create_categories=true"
    yield Case("options/category-created.csv", data, query=query, unchanged=1, created=2, products=garden)
    data = table(TITLES, changed(BALL, category="Garden")).encode()
    yield Case(
        "options/category-updated.csv", data, query=query, updated=1, products={"1": {"category_name": "Garden"}}
    )
    data = table(TITLES, changed(new("Lamp", "x"), category="Garden")).encode()
    errors = [{"row": 2, "category_name": "Garden", "price": "A valid number is required."}]
    yield Case("options/category-and-price.csv", data, errors=errors)
    data = table(TITLES, changed(new("Lamp"), category="g" * 101), changed(new("Hose"), category=" ")).encode()
    errors = [{"row": row, "category_name": ""} for row in (2, 3)]
    yield Case("options/category-invalid.csv", data, query=query, errors=errors)
    data = table(TITLES, changed(BALL, id="70", name="Seventy"), NOVEL).encode()
    errors = [{"row": 2, "id": "object does not exist"}]
    yield Case("options/id-missing.csv", data, unchanged=1, errors=errors)
    query, seventy = "missing_id=create", {"70": {"name": "Seventy", "price": 19.99, "tags": ["eco", "new"]}}
    yield Case("options/id-created.csv", data, query=query, created=1, unchanged=1, products=seventy)
    data = table(TITLES, changed(BALL, id="70"), changed(BALL, id="70")).encode()
    errors = [{"row": 3, "id": "An earlier row has this id."}]
    yield Case("options/id-created-twice.csv", data, query=query, created=1, errors=errors)
    data = table(TITLES, changed(BALL, id="-5"), changed(BALL, id="0"), BALL).encode()
    # other programs can store such ids, and an export is imported with all of its ids
    yield Case("options/id-not-positive.csv", data, query=query, created=2, unchanged=1)
    data = table(["ID", "Price"], ["70", "5"], ["1", "19.99"]).encode()
    errors = [{"row": 2, "name": "This field is required.", "category_name": "This field is required."}]
    yield Case("options/id-created-incomplete.csv", data, query=query, unchanged=1, errors=errors)
    data = workbook({"Products": products(changed(BALL, id="70", category="Garden"), changed(BOOK, id="71"), CAFE)})
    query = "missing_id=create&create_categories=true"
    both: dict[str, Json] = {
        "70": {"category_name": "Garden", "created_at": "2023-08-08T12:00:00Z"},
        "71": {"price": 1299.9},
    }
    yield Case("options/all.xlsx", data, query=query, created=2, unchanged=1, products=both)


def serial_dates() -> Iterator[Case]:
    titles = row(1, text("A1", "ID") + text("B1", "Created at"))
    for name, value in (
        ("exact", serial(CAFE[5])),
        ("seven-decimals", "46349.5429114"),
        ("fifteen-digits", "46349.5429113760"),
        ("hundredths-of-ods", "46349.5429113426"),
        ("milliseconds", serial("2026-11-23T13:01:47.543Z")),
        ("seconds", serial("2026-11-23T13:01:47Z")),
        ("rounded-seconds", serial("2026-11-23T13:01:48Z")),
    ):
        content = titles + row(2, number("A2", "3") + number("B2", value, 1))
        yield Case(f"values/moment-{name}.xlsx", workbook({"Products": sheet(content)}), unchanged=1)
    content = titles + row(2, number("A2", "3") + number("B2", "46349.5", 1))
    noon = {"3": {"created_at": "2026-11-23T12:00:00Z"}}
    yield Case("values/moment-other.xlsx", workbook({"Products": sheet(content)}), updated=1, products=noon)
    empty = titles + row(2, number("A2", "3") + '<c r="B2" s="1"/>')
    yield Case("values/moment-empty.xlsx", workbook({"Products": sheet(empty)}), unchanged=1)


def cases() -> Iterator[Case]:
    for group in (moments, options, serial_dates):
        yield from group()
