"""CSV: record ends, quotes and row numbers."""

from collections.abc import Iterator

from .case import BALL, BOOK, CAFE, NOVEL, TITLES, Case, changed, new, table

PRICE = {"price": "A valid number is required."}


def line_ends() -> Iterator[Case]:
    rows = [TITLES, BALL, BOOK, NOVEL]
    for name, end in (("lf", "\n"), ("crlf", "\r\n"), ("cr", "\r")):
        text = table(*rows, end=end)
        yield Case(f"csv/ends-{name}.csv", text.encode(), unchanged=3)
        yield Case(f"csv/ends-{name}-not-at-end.csv", text.removesuffix(end).encode(), unchanged=3)
    text = "ID,Description,Price\r\n1,belongs to one,1.11\r2,,2.22\r"
    one, two = {"description": "belongs to one", "price": 1.11}, {"description": "", "price": 2.22}
    yield Case("csv/ends-mixed.csv", text.encode(), updated=2, products={"1": one, "2": two})
    text = "ID,Price\n1,19.99\r\n2,1299.90\r3,0.10\n4,5\r\n"
    yield Case("csv/ends-of-three-kinds.csv", text.encode(), unchanged=4)
    text = "ID,Price\r\r\n1,19.99\r\r\n2,x\r\r\n"
    yield Case("csv/ends-cr-crlf.csv", text.encode(), unchanged=1, errors=[{"row": 5, **PRICE}])


def row_numbers() -> Iterator[Case]:
    for name, end in (("lf", "\n"), ("crlf", "\r\n"), ("cr", "\r")):
        text = end.join(["", "ID,Price", "", "1,19.99", "", "", "2,x", "3,0.10", "4,y"])
        errors = [{"row": 7, **PRICE}, {"row": 9, **PRICE}]
        yield Case(f"csv/empty-lines-{name}.csv", text.encode(), unchanged=2, errors=errors)
        cell = f'"two{end}lines"'
        text = end.join(["ID,Price,Description", f"1,x,{cell}", "", f"2,y,{cell}", "4,5,"])
        errors = [{"row": 2, **PRICE}, {"row": 4, **PRICE}]
        yield Case(f"csv/line-breaks-{name}.csv", text.encode(), unchanged=1, errors=errors)
    yield Case("csv/line-break-in-description.csv", table(TITLES, CAFE).encode(), unchanged=1)
    text = 'ID,"Na\nme",Price\n1,Ball,19.99\n'
    yield Case("csv/line-break-in-title.csv", text.encode(), detail=["column 2"])


def quotes() -> Iterator[Case]:
    head = "ID,Name,Price\n"
    unclosed = ["quot"]
    text = 'ID,"Name,Price\n1,Ball,19.99\n2,Книга,1299.90\n'
    yield Case("csv/unclosed-quote-in-titles.csv", text.encode(), detail=unclosed)
    for row, lines in (
        (2, '1,"Ball,19.99\n2,Книга,1299.90\n4,日本語の本,5\n'),
        (3, '1,Ball,19.99\n2,"Книга,1299.90\n4,日本語の本,5\n'),
        (4, '1,Ball,19.99\n2,Книга,1299.90\n4,"日本語の本,5\n'),
        (5, '1,Ball,19.99\n2,Книга,1299.90\n4,日本語の本,5\n,"'),
    ):
        detail = [*unclosed, f"{row}"]
        yield Case(f"csv/unclosed-quote-in-row-{row}.csv", (head + lines).encode(), detail=detail)
    text = head + '1,Ball,19.99\n2,"Книга,1299.90\n4,"日本語の本",5\n'
    yield Case("csv/unclosed-quote-before-quotes.csv", text.encode(), detail=unclosed)
    titles = "Name,Price,Category\n"
    for name, cell, value in (
        ("inches", '5" disk', '5" disk'),
        ("doubled", '"5"" disk"', '5" disk'),
        ("only-quotes", '"""quoted"""', '"quoted"'),
        ("all-cells", '"plain"', "plain"),
    ):
        text = f"{titles}{cell},1,Sport\n"
        yield Case(f"csv/quotes-{name}.csv", text.encode(), created=1, products={"5": {"name": value}})
    text = '"ID","Name","Price"\r\n"1","Ball","19.99"\r\n"2","Книга","1299.90"\r\n'
    yield Case("csv/quotes-around-everything.csv", text.encode(), unchanged=2)
    text = f'{titles}"Al"pha,1,Sport\n'
    yield Case("csv/text-after-quote.csv", text.encode(), errors=[{"row": 2, "name": "quote"}])
    text = 'ID,Name,Tags\n1,"Ball","eco,\nnew"\n'
    yield Case("csv/quotes-line-break-in-tags.csv", text.encode(), unchanged=1)


def cells() -> Iterator[Case]:
    text = "ID,Price\n1,19.99,,,\n2,1299.90,,\n"
    yield Case("csv/trailing-separators-in-rows.csv", text.encode(), unchanged=2)
    text = "ID,Price,,\n1,19.99,,\n2,1299.90,,\n"
    yield Case("csv/trailing-separators.csv", text.encode(), unchanged=2)
    text = "ID,Price,,\n1,19.99,,\n2,1299.90,,lost\n"
    errors = [{"row": 3, "non_field_errors": ""}]
    yield Case("csv/cell-without-title.csv", text.encode(), unchanged=1, errors=errors)
    text = "ID,Price,Description\n1,19.99\n4,5.00\n"
    yield Case("csv/short-rows.csv", text.encode(), updated=1, unchanged=1, products={"1": {"description": ""}})
    text = 'ID,Price\n1,19.99\n ,  \n\u00a0,\u00a0\n,\n\t,\n""," "\n2,x\n'
    yield Case("csv/blank-rows.csv", text.encode(), unchanged=1, errors=[{"row": 8, **PRICE}])
    text = "\u00a0, \n ,\nID,Price\n1,19.99\n\u00a0\n"
    yield Case("csv/blank-rows-before-titles.csv", text.encode(), unchanged=1)
    yield Case("csv/titles-only.csv", table(TITLES).encode())
    yield Case("csv/titles-only-without-line-end.csv", table(TITLES).rstrip().encode())
    text = table(TITLES, new("'=1+1"), new("=1+1"), new("'tis"))
    names = {"5": {"name": "=1+1"}, "6": {"name": "=1+1"}, "7": {"name": "'tis"}}
    yield Case("csv/formulas-are-texts.csv", text.encode(), created=3, products=names)
    text = table(TITLES, changed(BALL, description="tab\there"))
    tab = {"1": {"description": "tab\there"}}
    yield Case("csv/tab-in-comma-file.csv", text.encode(), updated=1, products=tab)
    text = table(TITLES, new("null", description="a\0b"), BALL)
    errors = [{"row": 2, "description": "Null characters are not allowed."}]
    yield Case("csv/null-character.csv", text.encode(), unchanged=1, errors=errors)


def cases() -> Iterator[Case]:
    for group in (line_ends, row_numbers, quotes, cells):
        yield from group()
