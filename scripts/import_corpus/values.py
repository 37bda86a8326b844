"""Workbooks: the values of cells."""

from collections.abc import Iterator
from typing import Any

from .case import BALL, BOOK, NOVEL, TITLES, Case, changed
from .workbook import cells, number, row, rows, shared_strings, sheet, text, workbook

NUMBER, STRING = "A valid number is required.", "Not a valid string."
PHONETIC = '<rPh sb="0" eb="3"><t>ニホンゴ</t></rPh><phoneticPr fontId="1"/>'

RICH = '<r><t xml:space="preserve">A </t></r><r><rPr><b/></rPr><t>round</t></r><r><t xml:space="preserve"> ball</t></r>'


def with_cell(cell: str, column: str = "C", **options: Any) -> bytes:
    """Returns a workbook whose second row is the first product with another cell in a column; the third is valid."""
    line = cells(2, changed(BALL, **dict.fromkeys([NAMES[column]], "")))
    # cells of a row are in the order of their columns
    before, after = "", line
    if column != "A":
        position = line.index(f'<c r="{chr(ord(column) + 1)}2"') if column != "G" else len(line)
        before, after = line[:position], line[position:]
    content = row(1, cells(1, TITLES)) + row(2, before + cell + after) + rows(BOOK, first=3)
    return workbook({"Products": sheet(content)}, **options)


NAMES = dict(zip("ABCDEFG", ["id", "name", "description", "category", "price", "created_at", "tags"], strict=True))


def empty_values() -> Iterator[Case]:
    head = rows(TITLES, BALL)
    for name, cell in (
        ("number", '<c r="C3"><v/></c>'),
        ("number-open", '<c r="C3" s="1"><v></v></c>'),
        ("shared", '<c r="C3" t="s"><v/></c>'),
        ("shared-blank", '<c r="C3" t="s"><v> </v></c>'),
        ("text", '<c r="C3" t="str"><v/></c>'),
        ("inline", '<c r="C3" t="inlineStr"><is><t/></is></c>'),
        ("inline-without-text", '<c r="C3" t="inlineStr"><is/></c>'),
        ("inline-without-is", '<c r="C3" t="inlineStr"/>'),
        ("boolean", '<c r="C3" t="b"><v/></c>'),
        ("error", '<c r="C3" t="e"><v/></c>'),
        ("date", '<c r="C3" t="d"><v/></c>'),
        ("formula", '<c r="C3"><f>A1</f><v/></c>'),
        ("formula-text", '<c r="C3" t="str"><f>""</f><v></v></c>'),
        ("formula-open", '<c r="C3"><f ca="1"/><v></v></c>'),
        ("cell", '<c r="C3" s="1"/>'),
    ):
        line = cells(3, NOVEL)
        position = line.index('<c r="D3"')
        content = head + row(3, line[:position] + cell + line[position:])
        yield Case(f"values/empty-{name}.xlsx", workbook({"Products": sheet(content)}), unchanged=2)
    everywhere = "".join(f'<c r="{column}3"><v/></c>' for column in "ABCDEFG")
    book = workbook({"Products": sheet(head + row(3, everywhere) + rows(BOOK, first=4))})
    yield Case("values/empty-row.xlsx", book, unchanged=2)
    strings = shared_strings("<t/>", "<t> </t>", "")
    blank = "".join(f'<c r="{column}3" t="s"><v>{index}</v></c>' for index, column in enumerate("ABC"))
    book = workbook({"Products": sheet(head + row(3, blank) + rows(BOOK, first=4))}, strings=strings)
    yield Case("values/empty-shared-row.xlsx", book, unchanged=2)


def texts() -> Iterator[Case]:
    for name, cell in (
        ("inline", text("C2", "A round ball")),
        ("formula-result", '<c r="C2" t="str"><f>"A "&amp;B1</f><v>A round ball</v></c>'),
        ("string", '<c r="C2" t="str"><v>A round ball</v></c>'),
        (
            "rich-inline",
            f'<c r="C2" t="inlineStr"><is>{RICH}</is></c>',
        ),
        ("phonetic-inline", f'<c r="C2" t="inlineStr"><is><t>A round ball</t>{PHONETIC}</is></c>'),
        ("cdata", '<c r="C2" t="str"><v>A <![CDATA[round]]> ball</v></c>'),
        ("character-references", '<c r="C2" t="str"><v>&#65; round&#x20;ball</v></c>'),
        ("escapes", '<c r="C2" t="str"><v>_x0041_ round_x0020_ball</v></c>'),
        ("comment-inside", '<c r="C2" t="str"><v>A round<!-- and red --> ball</v></c>'),
        ("space", '<c r="C2" t="inlineStr"><is><t xml:space="preserve">  A round ball\n </t></is></c>'),
    ):
        yield Case(f"values/text-{name}.xlsx", with_cell(cell), unchanged=2)
    for name, item in (
        ("plain", "<t>A round ball</t>"),
        ("rich", '<r><t xml:space="preserve">A </t></r><r><rPr><sz val="9"/><t>no</t></rPr><t>round ball</t></r>'),
        ("phonetic", f"<t>A round ball</t>{PHONETIC}"),
    ):
        strings = shared_strings("<t>other</t>", item.replace("<t>no</t>", ""))
        book = with_cell('<c r="C2" t="s"><v>1</v></c>', strings=strings)
        yield Case(f"values/shared-{name}.xlsx", book, unchanged=2)
    for name, cell, value in (
        ("entities", text("C2", "<&>\"' 🐢"), "<&>\"' 🐢"),
        ("carriage-return", '<c r="C2" t="str"><v>one_x000D_\ntwo_x000d_three</v></c>', "one\r\ntwo\rthree"),
        ("escaped-escape", '<c r="C2" t="str"><v>_x005F_x0041_ _x00ZZ_</v></c>', "_x0041_ _x00ZZ_"),
        ("formula-is-text", text("C2", "=1+1"), "=1+1"),
        ("number", number("C2", "1234567"), "1234567"),
        ("number-fraction", number("C2", "0.30000000000000004"), "0.3"),
    ):
        products = {"1": {"description": value}}
        yield Case(f"values/text-{name}.xlsx", with_cell(cell), updated=1, unchanged=1, products=products)
    longest = with_cell(text("C2", "x" * 32767))
    yield Case("values/text-32767-units.xlsx", longest, updated=1, unchanged=1)


def unreadable() -> Iterator[Case]:
    """Cells that are errors of their row, whatever column they are in."""
    for name, column, cell, message in (
        ("no-number", "E", '<c r="E2"><v>abc</v></c>', ""),
        ("no-number-id", "A", '<c r="A2"><v>abc</v></c>', ""),
        ("number-too-large", "E", '<c r="E2"><v>1e999</v></c>', ""),
        ("number-nan", "E", '<c r="E2"><v>NaN</v></c>', ""),
        ("number-hexadecimal", "E", '<c r="E2"><v>0x10</v></c>', ""),
        ("number-comma", "E", '<c r="E2"><v>19,99</v></c>', ""),
        ("shared-missing", "C", '<c r="C2" t="s"><v>7</v></c>', ""),
        ("shared-negative", "C", '<c r="C2" t="s"><v>-1</v></c>', ""),
        ("shared-no-number", "C", '<c r="C2" t="s"><v>one</v></c>', ""),
        ("boolean", "B", '<c r="B2" t="b"><v>1</v></c>', STRING),
        ("boolean-id", "A", '<c r="A2" t="b"><v>1</v></c>', "A valid integer is required."),
        ("boolean-price", "E", '<c r="E2" t="b"><v>1</v></c>', NUMBER),
        ("error", "E", '<c r="E2" t="e"><v>#N/A</v></c>', ""),
        ("error-name", "B", '<c r="B2" t="e"><v>#REF!</v></c>', ""),
        ("error-created-at", "F", '<c r="F2" t="e"><v>#VALUE!</v></c>', ""),
        ("error-tags", "G", '<c r="G2" t="e"><v>#NAME?</v></c>', ""),
        ("formula-without-result", "C", '<c r="C2"><f>1+1</f></c>', ""),
        ("unknown-type", "C", '<c r="C2" t="wonder"><v>1</v></c>', ""),
        ("date-no-date", "F", '<c r="F2" t="d"><v>soon</v></c>', "Datetime has wrong format."),
        ("date-too-large", "F", '<c r="F2" s="1"><v>99999999</v></c>', "Datetime has wrong format."),
        ("date-negative", "F", '<c r="F2" s="1"><v>-1</v></c>', "Datetime has wrong format."),
        ("price-text", "E", text("E2", "cheap"), NUMBER),
        ("price-comma", "E", text("E2", "19,99"), NUMBER),
        ("price-negative", "E", number("E2", "-1"), "greater than or equal to 0"),
        ("price-three-decimals", "E", number("E2", "1.005"), "2 decimal places"),
        ("price-huge", "E", number("E2", "1E+300"), ""),
        ("name-too-long", "B", text("B2", "x" * 300), "no more than"),
        ("null", "C", '<c r="C2" t="str"><v>a_x0000_b</v></c>', "Null characters"),
        ("undefined-entity", "C", '<c r="C2" t="str"><v>a&nbsp;b</v></c>', "undefined XML entity"),
        ("invalid-reference", "C", '<c r="C2" t="str"><v>a&#xD800;b</v></c>', "invalid character reference"),
        ("inline-in-v", "C", '<c r="C2" t="inlineStr"><v>x</v></c>', "another type"),
        ("number-in-is", "C", '<c r="C2"><is><t>x</t></is></c>', "another type"),
        ("shared-in-is", "C", '<c r="C2" t="s"><is><t>x</t></is></c>', "another type"),
        ("bare-text", "C", '<c r="C2" t="str">x</c>', "another type"),
    ):
        field = {**NAMES, "D": "category_name"}[column]
        errors = [{"row": 2, field: message}]
        yield Case(f"values/{name}.xlsx", with_cell(cell, column), unchanged=1, errors=errors)
    book = with_cell(text("C2", "x" * 300_000))
    yield Case("values/text-too-long.xlsx", book, unchanged=1, errors=[{"row": 2, "description": ""}])
    strings = shared_strings("<t>" + "x" * 300_000 + "</t>", "<t>A round ball</t>")
    book = with_cell('<c r="C2" t="s"><v>0</v></c>', strings=strings)
    yield Case("values/shared-too-long.xlsx", book, unchanged=1, errors=[{"row": 2, "description": ""}])
    book = with_cell('<c r="C2" t="s"><v>1</v></c>', strings=strings)
    yield Case("values/shared-too-long-unused.xlsx", book, unchanged=2)


def numbers() -> Iterator[Case]:
    for name, column, cell in (
        ("price-binary", "E", number("E2", "19.989999999999998")),
        ("price-exponent", "E", number("E2", "1.999E1")),
        ("price-styled", "E", number("E2", "19.99", 3)),
        ("price-text", "E", text("E2", "19.99")),
        ("price-blanks", "E", '<c r="E2" t="n"><v> 19.99 </v></c>'),
        ("price-formula", "E", '<c r="E2"><f>20-0.01</f><v>19.99</v></c>'),
        ("id-decimal", "A", number("A2", "1.0")),
        ("id-exponent", "A", number("A2", "1E+00")),
        ("id-text", "A", text("A2", "1")),
        ("date-text", "F", text("F2", "2023-08-08T12:00:00Z")),
        ("date-iso", "F", '<c r="F2" s="1" t="d"><v>2023-08-08T12:00:00</v></c>'),
        ("date-iso-zone", "F", '<c r="F2" t="d"><v>2023-08-08T12:00:00.000Z</v></c>'),
        ("date-without-style", "F", number("F2", "45146.5")),
        ("date-minutes", "F", number("F2", "45146.5", 2)),
        ("date-formula", "F", '<c r="F2" s="1"><f>TODAY()</f><v>45146.5</v></c>'),
    ):
        yield Case(f"values/number-{name}.xlsx", with_cell(cell, column), unchanged=2)
    for name, value in (("true", "1"), ("word", "true")):
        book = with_cell(number("F2", str(45146.5 - 1462), 1), "F", properties=f'<workbookPr date1904="{value}"/>')
        # the other row counts from 1904 as well
        moved = {"2": {"created_at": "2028-03-01T23:59:59Z"}}
        yield Case(f"values/epoch-1904-{name}.xlsx", book, updated=1, unchanged=1, products=moved)
    book = with_cell(number("F2", "45146.5", 1), "F", properties='<workbookPr date1904="0"/>')
    yield Case("values/epoch-1904-false.xlsx", book, unchanged=2)


def cases() -> Iterator[Case]:
    for group in (empty_values, texts, unreadable, numbers):
        yield from group()
