"""Workbooks: which sheets are read, rows and their numbers, and sheets as programs write them."""

import re
from collections.abc import Iterator

from .case import BALL, BOOK, CAFE, NOVEL, TITLES, Case, changed
from .workbook import MAIN, RELATIONSHIPS, cells, number, products, relationships, row, rows, sheet, text, workbook

GOOD = products(BALL, BOOK)
OTHER = products(changed(BALL, name="Other"))
NOTES = sheet(rows(["How to use this file"], ["Fill in the sheet", "and send it"], first=2))
EMPTY = sheet("")
HIDDEN, VERY_HIDDEN = ' state="hidden"', ' state="veryHidden"'


def selection() -> Iterator[Case]:
    for name, title in (
        ("lower-case", "products"),
        ("upper-case", "PRODUCTS"),
        ("padded", "Products "),
        ("padded-before", " Products"),
        ("nbsp", "Products\u00a0"),
    ):
        # the first sheet has titles too, but not the name
        yield Case(f"sheets/name-{name}.xlsx", workbook({"Data": OTHER, title: GOOD}), unchanged=2)
    yield Case("sheets/name-other.xlsx", workbook({"Лист1": GOOD}), unchanged=2)
    for name, first in (
        ("instructions", NOTES),
        ("empty", EMPTY),
        ("styled-empty", sheet(row(1, '<c r="A1" s="1"/>'))),
    ):
        yield Case(f"sheets/{name}-first.xlsx", workbook({"Sheet1": first, "Data": GOOD}), unchanged=2)
        yield Case(f"sheets/{name}-first-products.xlsx", workbook({"Sheet1": first, "products": GOOD}), unchanged=2)
    yield Case("sheets/products-first-then-notes.xlsx", workbook({"Products": GOOD, "Notes": NOTES}), unchanged=2)
    yield Case("sheets/hidden-first.xlsx", workbook({"Old": OTHER, "Data": GOOD}, states={"Old": HIDDEN}), unchanged=2)
    yield Case(
        "sheets/very-hidden-first.xlsx",
        workbook({"Old": OTHER, "Data": GOOD}, states={"Old": VERY_HIDDEN}),
        unchanged=2,
    )
    book = workbook({"Notes": NOTES, "Products": GOOD}, states={"Products": HIDDEN})
    yield Case("sheets/hidden-products.xlsx", book, unchanged=2)
    yield Case("sheets/all-hidden.xlsx", workbook({"Data": GOOD}, states={"Data": HIDDEN}), unchanged=2)
    yield Case("sheets/only-notes.xlsx", workbook({"Notes": NOTES}), detail=["Notes"])
    yield Case("sheets/only-empty.xlsx", workbook({"Empty": EMPTY}), detail=["header row"])
    yield Case("sheets/none.xlsx", workbook({}), detail=["Import error"])
    chart = relationships(
        {"rId1": ("chartsheet", "chartsheets/sheet1.xml"), "rId2": ("worksheet", "worksheets/sheet2.xml")}
    )
    parts: dict[str, bytes | None] = {
        "xl/_rels/workbook.xml.rels": chart.encode(),
        "xl/chartsheets/sheet1.xml": f'<chartsheet xmlns="{MAIN}"/>'.encode(),
        "xl/worksheets/sheet1.xml": None,
    }
    yield Case("sheets/chart-first.xlsx", workbook({"Chart": EMPTY, "Data": GOOD}, parts=parts), unchanged=2)


def continuation() -> Iterator[Case]:
    second = products(CAFE, NOVEL)
    for name, title in (("", "Products 2"), ("-lower-case", "products 2"), ("-padded", "Products 2 ")):
        yield Case(f"sheets/second{name}.xlsx", workbook({"Products": GOOD, title: second}), unchanged=4)
    yield Case("sheets/second-first.xlsx", workbook({"Products 2": second, "Products": GOOD}), unchanged=4)
    wrong = products(changed(CAFE, price="1.234"), NOVEL)
    errors = [{"sheet": "Products 2", "row": 2, "price": "2 decimal places"}]
    yield Case(
        "sheets/second-wrong.xlsx", workbook({"Products": GOOD, "Products 2": wrong}), unchanged=3, errors=errors
    )
    stock = products(CAFE).replace(">Tags<", ">Stock<")
    book = workbook({"Products": GOOD, "Products 2": stock})
    yield Case("sheets/second-unknown-title.xlsx", book, detail=["Stock", "Products 2", "G1"])
    yield Case("sheets/second-empty.xlsx", workbook({"Products": GOOD, "Products 2": EMPTY}), unchanged=2)
    third = {"Products": GOOD, "Products 2": products(CAFE), "Products 3": products(NOVEL)}
    yield Case("sheets/third.xlsx", workbook(third), unchanged=4)
    yield Case(
        "sheets/id-in-both.xlsx",
        workbook({"Products": GOOD, "Products 2": GOOD}),
        unchanged=2,
        errors=[{"sheet": "Products 2", "row": row, "id": "An earlier row has this id."} for row in (2, 3)],
    )


def row_numbers() -> Iterator[Case]:
    head = rows(TITLES, BALL)
    # the report of errors could not name one of two rows with the same number
    repeated = head + row(3, cells(3, BOOK)) + row(3, cells(3, NOVEL)) + row(4, cells(4, CAFE))
    yield Case("rows/repeated.xlsx", workbook({"Products": sheet(repeated)}), detail=["Products", "row 3"])
    halves = head + row(3, number("A3", "2")) + row(3, text("B3", "Книга"))
    yield Case("rows/repeated-disjoint.xlsx", workbook({"Products": sheet(halves)}), detail=["Products", "row 3"])
    decreasing = head + row(9, cells(9, BOOK)) + row(5, cells(5, NOVEL))
    yield Case("rows/decreasing.xlsx", workbook({"Products": sheet(decreasing)}), detail=["Products", "row 5"])
    nested = head + f'<row r="3">{number("A3", "2")}{row(4, cells(4, NOVEL))}</row>'
    yield Case("rows/nested.xlsx", workbook({"Products": sheet(nested)}), detail=["Products", "row 3", "another row"])
    twice = sheet(head).replace("</worksheet>", f"<sheetData>{rows(BOOK, first=3)}</sheetData></worksheet>")
    yield Case("rows/two-tables.xlsx", workbook({"Products": twice}), detail=["Products", "two tables"])
    other = head + row(3, cells(4, BOOK))
    yield Case("rows/cell-of-another-row.xlsx", workbook({"Products": sheet(other)}), detail=["Products", "row 3"])
    gaps = row(3, cells(3, TITLES)) + row(7, cells(7, BALL)) + row(100, cells(100, changed(BOOK, price="1.234")))
    yield Case("rows/gaps.xlsx", workbook({"Products": sheet(gaps)}), unchanged=1, errors=[{"row": 100, "price": ""}])
    plain = re.sub(r' r="[A-J]?\d+"', "", rows(TITLES, BALL, BOOK))
    yield Case("rows/no-references.xlsx", workbook({"Products": sheet(plain)}), unchanged=2)
    numbered = re.sub(r'<row r="\d+"', "<row", rows(TITLES, BALL, BOOK, NOVEL))
    yield Case("rows/no-row-numbers.xlsx", workbook({"Products": sheet(numbered)}), unchanged=3)
    referenced = re.sub(r' r="[A-J]\d+"', "", rows(TITLES, BALL, BOOK))
    yield Case("rows/no-cell-references.xlsx", workbook({"Products": sheet(referenced)}), unchanged=2)
    lower = re.sub(r' r="([A-J]\d+)"', lambda found: f' r="{found[1].lower()}"', rows(TITLES, BALL, BOOK))
    yield Case("rows/lower-case-references.xlsx", workbook({"Products": sheet(lower)}), unchanged=2)
    blank = (
        rows(TITLES, BALL)
        + row(3, text("A3", " ") + text("B3", "\u00a0"))
        + row(4, '<c r="A4" s="1"/>')
        + rows(BOOK, first=5)
    )
    yield Case("rows/blank.xlsx", workbook({"Products": sheet(blank)}), unchanged=2)
    styled = rows(TITLES, BALL) + row(3, '<c r="A3" s="1"/><c r="G3" s="2"/>', ' s="1" customFormat="1"')
    styled += row(1048576, '<c r="A1048576" s="1"/><c r="XFD1048576" s="1"/>')
    yield Case("rows/styled-to-the-end.xlsx", workbook({"Products": sheet(styled)}), unchanged=1)
    last = rows(TITLES, BALL) + row(1048576, cells(1048576, changed(BOOK, price="1.234")))
    yield Case(
        "rows/last.xlsx", workbook({"Products": sheet(last)}), unchanged=1, errors=[{"row": 1048576, "price": ""}]
    )
    beyond = rows(TITLES, BALL) + row(4, text("XFD4", "far"))
    yield Case(
        "rows/cell-without-title.xlsx",
        workbook({"Products": sheet(beyond)}),
        unchanged=1,
        errors=[{"row": 4, "non_field_errors": ""}],
    )


def as_programs_write() -> Iterator[Case]:
    body = rows(TITLES, BALL, BOOK)

    def with_sheet(xml: str) -> bytes:
        return workbook({"Products": xml})

    yield Case("rows/dimension-missing.xlsx", with_sheet(sheet(body)), unchanged=2)
    yield Case("rows/dimension-wrong.xlsx", with_sheet(sheet(body, '<dimension ref="A1"/>')), unchanged=2)
    yield Case("rows/dimension-invalid.xlsx", with_sheet(sheet(body, '<dimension ref="nowhere"/>')), unchanged=2)
    before = (
        '<sheetPr filterMode="1"/><dimension ref="A1:G3"/><sheetViews><sheetView workbookViewId="0">'
        '<pane ySplit="1" topLeftCell="A2" state="frozen"/></sheetView></sheetViews>'
        '<cols><col min="1" max="7" width="9"/></cols>'
    )
    after = (
        '<autoFilter ref="A1:G3"/><mergeCells count="1"><mergeCell ref="G3:H3"/></mergeCells>'
        '<dataValidations count="0"/><hyperlinks/><extLst><ext uri="x"><x:y xmlns:x="u"/></ext></extLst>'
    )
    attributes = 'spans="1:7" ht="15" hidden="1" outlineLevel="1" xmlns:x="u" x:dyDescent="0.25"'
    hidden = body.replace('<row r="3">', f'<row r="3" {attributes}>')
    yield Case("rows/hidden-and-merged.xlsx", with_sheet(sheet(hidden, before, after)), unchanged=2)
    merged = rows(TITLES, BALL) + row(3, cells(3, changed(BOOK, category="")) + '<c r="D3" s="1"/>')
    errors = [{"row": 3, "category_name": ""}]
    after = '<mergeCells count="1"><mergeCell ref="D2:D3"/></mergeCells>'
    yield Case("rows/merged-over-two-rows.xlsx", with_sheet(sheet(merged, after=after)), unchanged=1, errors=errors)
    self_closed = sheet("").replace("<sheetData></sheetData>", "<sheetData/>")
    yield Case("rows/no-rows.xlsx", with_sheet(self_closed), detail=["header row"])
    choice = '<mc:Choice Requires="x"><a r="1"/></mc:Choice>'
    alternate = f'<mc:AlternateContent xmlns:mc="m" xmlns:r="{RELATIONSHIPS}">{choice}</mc:AlternateContent>'
    yield Case("rows/alternate-content.xlsx", with_sheet(sheet(body, alternate, alternate)), unchanged=2)
    foreign = re.sub('<c r="([A-J])2"', r'<c xmlns:x="u" x:t="b" x:r="Z99" r="\g<1>2" x:s="7"', body)
    yield Case("rows/foreign-attributes.xlsx", with_sheet(sheet(foreign)), unchanged=2)
    spaced = body.replace("><", ">\n  <")
    yield Case("rows/indented.xlsx", with_sheet(sheet(spaced)), unchanged=2)


def cases() -> Iterator[Case]:
    for group in (selection, continuation, row_numbers, as_programs_write):
        yield from group()
