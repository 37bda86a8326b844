"""Products with values that programs are known to change."""

import csv
import io

TITLES = ["Name", "Description", "Category", "Price", "Created at", "Tags"]
NOON = "2024-05-06T12:00:00Z"
# a category of the demo data
CATEGORY = "Sport"


def product(name: str, description: str = "", price: str = "1.00", created_at: str = NOON, tags: str = "") -> list[str]:
    return [name, description, CATEGORY, price, created_at, tags]


EDGE_CASES = [
    product("formula", "=1+1"),
    product("plus", "+49 30 123456"),
    product("minus", "-12"),
    product("at sign", "@SUM(A1)"),
    product("leading zeros", "00123"),
    product("exponent", "1e5"),
    product("decimal", "1.50"),
    product("boolean", "TRUE"),
    product("date", "2024-01-02"),
    product("error", "#N/A"),
    product("missing value", "NA"),
    product("null", "null"),
    product("apostrophe", "'quoted"),
    product("quotes", 'a "quoted" word'),
    product("separators", "a, b; c"),
    product("line break", "one\ntwo"),
    product("tab", "one\ttwo"),
    product("spaces", "two  spaces"),
    product("markup", "<b>&amp;</b> ]]>"),
    product("escape", "_x0041_"),
    product("cyrillic", "Привет, мир"),
    product("japanese", "日本語の本"),
    product("emoji", "🐢🇩🇪"),
    product("combined", "cafe\u0301"),
    product("no-break space", "1\u00a0kg"),
    product("long", "x" * 32_000),
    product("free", price="0"),
    product("cent", price="0.01"),
    product("expensive", price="9999999999.99"),
    product("binary fraction", price="1299.90"),
    product("microseconds", created_at="2026-11-23T13:01:47.542885Z"),
    product("half second", created_at="2024-05-06T07:08:09.5Z"),
    product("almost a second", created_at="2024-05-06T07:08:09.999999Z"),
    product("end of year", created_at="2024-12-31T23:59:59.999Z"),
    product("leap day", created_at="2024-02-29T00:00:00Z"),
    product("before 1900", created_at="1850-06-07T08:09:10Z"),
    product("first days of 1900", created_at="1900-01-15T00:00:00Z"),
    product("tags", tags="round, red, new"),
    product("tag like a number", tags="2024"),
]


def csv_of(products: list[list[str]]) -> str:
    """Returns a CSV file that creates the products."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(TITLES)
    # a text that a spreadsheet takes for a formula is guarded, as in an export
    for name, description, *others in products:
        guarded = f"'{description}" if description[:1] in {"=", "+", "-", "@", "'"} else description
        writer.writerow([name, guarded, *others])
    return text.getvalue()
