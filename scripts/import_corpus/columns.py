"""Titles and ids, as CSV and as workbooks."""

from collections.abc import Iterator

from .case import BALL, BOOK, TITLES, Case, table
from .workbook import row, rows, sheet, text, workbook

API_NAMES = ["id", "name", "description", "category_name", "price", "created_at", "tags"]


def title_rows() -> Iterator[Case]:
    for name, titles in (
        ("api-names", API_NAMES),
        ("lower-case", [title.lower() for title in TITLES]),
        ("upper-case", [title.upper() for title in TITLES]),
        ("padded", [f" {title}\u00a0" for title in TITLES]),
        ("mixed-names", [*TITLES[:3], "category_name", "PRICE", "Created_At", "tags"]),
    ):
        yield Case(f"titles/{name}.csv", table(titles, BALL, BOOK).encode(), unchanged=2)
    yield Case("titles/api-names.xlsx", workbook({"Products": sheet(titled(API_NAMES, BALL))}), unchanged=1)
    yield Case("titles/other-order.csv", b'tags,Price,id\n"eco, new",19.99,1\n', unchanged=1)
    extra = table([*TITLES, "Stock"], [*BALL, "12"], [*BOOK, ""]).encode()
    yield Case("titles/unknown.csv", extra, detail=["Stock", "column 8"])
    yield Case("titles/unknown-refused.csv", extra, query="unknown_columns=refuse", detail=["Stock", "column 8"])
    yield Case("titles/unknown-ignored.csv", extra, query="unknown_columns=ignore", unchanged=2)
    book = workbook({"Products": sheet(titled([*TITLES, "Stock"], [*BALL, "12"]))})
    yield Case("titles/unknown.xlsx", book, detail=["Stock", "Products", "H1"])
    yield Case("titles/unknown-ignored.xlsx", book, query="unknown_columns=ignore", unchanged=1)
    line = rows(TITLES, BALL).replace("</row>", '<c r="H1"><v>2024</v></c></row>', 1)
    book = workbook({"Products": sheet(line)})
    yield Case("titles/number.xlsx", book, detail=["2024", "Products", "H1"])
    yield Case("titles/number.csv", table([*TITLES, "2024"], [*BALL, "1"]).encode(), detail=["2024", "column 8"])
    yield Case("titles/number-ignored.xlsx", book, query="unknown_columns=ignore", unchanged=1)
    yield Case("titles/twice.csv", table([*TITLES, "NAME"], [*BALL, "x"]).encode(), detail=["Name", "column 8"])
    yield Case(
        "titles/twice-by-both-names.csv", b"ID,Category,category_name\n1,Sport,Sport\n", detail=["Category", "column 3"]
    )
    twice = b"ID,Stock,Stock\n1,2,3\n"
    yield Case("titles/unknown-twice-ignored.csv", twice, query="unknown_columns=ignore", unchanged=1)
    yield Case("titles/none.csv", table(BALL, BOOK).encode(), detail=["Row 1, column 1"])
    # a file of other columns is no file of products, and an import of it should not look like a success
    yield Case("titles/none-ignored.csv", b"a,b\n1,2\n", query="unknown_columns=ignore", detail=[""])
    yield Case("titles/id-only.csv", b"ID\n1\n2\n3\n4\n", unchanged=4)
    # pandas writes its index below an empty title
    index = table(["", "ID", "Price"], ["0", "1", "19.99"], ["1", "2", "1299.90"]).encode()
    untitled = [{"row": row, "non_field_errors": "column 1"} for row in (2, 3)]
    yield Case("titles/blank.csv", index, errors=untitled)
    yield Case("titles/blank-ignored.csv", index, query="unknown_columns=ignore", unchanged=2)
    # a cell behind the last title shows that the cells of its row are displaced
    shifted = b"ID,Price\n1,19.99\n2,1299,90\n"
    errors = [{"row": 3, "non_field_errors": "column 3"}]
    yield Case("titles/displaced-ignored.csv", shifted, query="unknown_columns=ignore", unchanged=1, errors=errors)
    yield Case("titles/without-id.csv", b"Name,Category,Price\nBall,Sport,7\n", created=1)
    yield Case("titles/no-required-column.csv", b"Name\nBall\n", errors=[{"row": 2, "price": "", "category_name": ""}])
    suggestion = b"ID,Nmae\n1,Ball\n"
    yield Case("titles/misspelled.csv", suggestion, detail=["Nmae", "column 2", "Name"])


def titled(line: list[str], *values: list[str]) -> str:
    """Returns rows below titles that are texts, whatever they are."""
    first = "".join(text(f"{letter}1", title) for letter, title in zip("ABCDEFGHIJ", line, strict=False))
    return row(1, first) + rows(*values, first=2)


def ids() -> Iterator[Case]:
    for name, value in (
        ("decimal", "1.0"),
        ("two-decimals", "1.00"),
        ("exponent", "1E+00"),
        ("exponent-lower", "1e0"),
        ("padded", " 1 "),
        ("nbsp", "1\u00a0"),
    ):
        yield Case(f"ids/{name}.csv", table(["ID", "Price"], [value, "19.99"]).encode(), unchanged=1)
        if name not in ("decimal", "exponent"):
            continue
        line = row(1, text("A1", "ID") + text("B1", "Price")) + row(2, text("A2", value) + text("B2", "19.99"))
        yield Case(f"ids/{name}.xlsx", workbook({"Products": sheet(line)}), unchanged=1)
    for name, value in (
        ("fraction", "1.5"),
        ("text", "one"),
        ("out-of-range", "99999999999999999999"),
        ("exponent-out-of-range", "1E+30"),
        ("huge-exponent", "1E+999999999"),
        ("infinite", "inf"),
        ("two-numbers", "1 2"),
        # may be a thousand
        ("grouped", "1.000"),
        ("rounded", "1E+03"),
        ("hexadecimal", "0x1"),
    ):
        errors = [{"row": 2, "id": "A valid integer is required."}]
        data = table(["ID", "Price"], [value, "19.99"], ["2", "1299.90"]).encode()
        yield Case(f"ids/{name}.csv", data, unchanged=1, errors=errors)
    for name, value in (("missing", "77"), ("negative", "-1"), ("zero", "0"), ("largest", str(2**63 - 1))):
        errors = [{"row": 2, "id": "object does not exist"}]
        data = table(["ID", "Price"], [value, "19.99"], ["2", "1299.90"]).encode()
        yield Case(f"ids/{name}.csv", data, unchanged=1, errors=errors)
    data = table(["ID", "Price"], ["1", "19.99"], ["2", "1299.90"], ["1.0", "19.99"]).encode()
    yield Case("ids/twice.csv", data, unchanged=2, errors=[{"row": 4, "id": "An earlier row has this id."}])
    data = table(["ID", "Price"], ["1E+00", "7"], ["2.0", "8"]).encode()
    yield Case("ids/updated.csv", data, updated=2, products={"1": {"price": 7}, "2": {"price": 8}})


def cases() -> Iterator[Case]:
    for group in (title_rows, ids):
        yield from group()
