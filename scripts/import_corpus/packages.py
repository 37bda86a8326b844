"""Workbooks: the package around the sheets (names of parts, relationships, encodings, zip)."""

from collections.abc import Iterator

from .archive import PLAIN, Options
from .case import BALL, BOOK, CAFE, NOVEL, Case
from .workbook import (
    DECLARATION,
    MAIN,
    RELATIONSHIPS,
    content_types,
    number,
    products,
    relationships,
    row,
    shared_strings,
    sheet,
    text,
    workbook,
)

SHEETS = {"Products": products(BALL, CAFE)}
XML = SHEETS["Products"]
FIRST_SHEET = "xl/worksheets/sheet1.xml"
# a shared string and a cell that refers to it
STRINGS = shared_strings("<t>ID</t>", "<t>Name</t>", "<t>Ball</t>")
SHARED = sheet(
    '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c></row>'
    '<row r="2"><c r="A2"><v>1</v></c><c r="B2" t="s"><v>2</v></c></row>'
)


def names() -> Iterator[Case]:
    yield Case("package/plain.xlsx", workbook(SHEETS), unchanged=2)
    yield Case("package/shared-strings.xlsx", workbook({"Products": SHARED}, strings=STRINGS), unchanged=1)
    for name, targets in (
        ("absolute", "/xl/worksheets/"),
        ("absolute-other-case", "/XL/WorkSheets/"),
        ("dot", "./worksheets/"),
        ("dot-dot", "../xl/worksheets/"),
        ("dots", "x/.././/worksheets/./"),
        ("backslash", "worksheets\\"),
        ("backslash-absolute", "\\xl\\worksheets\\"),
        ("other-case", "WORKSHEETS/"),
    ):
        yield Case(f"package/target-{name}.xlsx", workbook(SHEETS, targets=targets), unchanged=2)
    for name, main in (
        ("absolute", "/xl/workbook.xml"),
        ("dot", "./xl/workbook.xml"),
        ("backslash", "xl\\workbook.xml"),
        ("other-case", "XL/Workbook.xml"),
    ):
        yield Case(f"package/main-{name}.xlsx", workbook(SHEETS, main=main), unchanged=2)
    all_parts = ["_rels/.rels", "xl/workbook.xml", "xl/_rels/workbook.xml.rels", "xl/sharedStrings.xml", FIRST_SHEET]
    for name, changed in (
        ("shared-strings-case", {"xl/sharedStrings.xml": "xl/SharedStrings.xml"}),
        ("upper-case", {part: part.upper() for part in all_parts}),
        ("backslashes", {part: part.replace("/", "\\") for part in all_parts}),
        ("leading-slash", {part: f"/{part}" for part in all_parts}),
    ):
        book = workbook({"Products": SHARED}, strings=STRINGS, names=changed)
        yield Case(f"package/part-{name}.xlsx", book, unchanged=1)
    escaped: dict[str, bytes | None] = {
        "xl/_rels/workbook.xml.rels": relationships({"rId1": ("worksheet", "worksheets/my%20sheet.xml")}).encode(),
        "xl/worksheets/my%20sheet.xml": XML.encode(),
        "xl/worksheets/sheet1.xml": None,
    }
    yield Case("package/part-percent-encoded.xlsx", workbook(SHEETS, parts=escaped), unchanged=2)
    elsewhere: dict[str, bytes | None] = {
        "_rels/.rels": relationships({"rId1": ("officeDocument", "book.xml")}).encode(),
        "xl/workbook.xml": None,
        "xl/_rels/workbook.xml.rels": None,
        "book.xml": main_part(),
        "_rels/book.xml.rels": relationships({"rId1": ("worksheet", "xl/worksheets/sheet1.xml")}).encode(),
    }
    yield Case("package/main-in-root.xlsx", workbook(SHEETS, parts=elsewhere), unchanged=2)


def main_part() -> bytes:
    book = f'<workbook xmlns="{MAIN}" xmlns:r="{RELATIONSHIPS}">'
    return f'{book}<sheets><sheet name="Products" sheetId="1" r:id="rId1"/></sheets></workbook>'.encode()


def missing_parts() -> Iterator[Case]:
    for name, part in (("styles", "xl/styles.xml"), ("content-types", "[Content_Types].xml")):
        yield Case(f"package/without-{name}.xlsx", workbook(SHEETS, parts={part: None}), unchanged=2)
    for name, part in (
        ("rels", "_rels/.rels"),
        ("workbook-rels", "xl/_rels/workbook.xml.rels"),
        ("workbook", "xl/workbook.xml"),
    ):
        yield Case(f"package/without-{name}.xlsx", workbook(SHEETS, parts={part: None}), detail=["Import error"])
    missing: dict[str, bytes | None] = {"xl/worksheets/sheet1.xml": None}
    yield Case("package/without-sheet.xlsx", workbook(SHEETS, parts=missing), detail=["Products"])
    errors = [{"row": 2, "name": ""}]
    titles = row(1, text("A1", "ID") + text("B1", "Name"))
    one = row(2, number("A2", "1") + '<c r="B2" t="s"><v>2</v></c>')
    book = workbook({"Products": sheet(titles + one + row(3, number("A3", "2") + text("B3", "Книга")))})
    yield Case("package/without-shared-strings.xlsx", book, unchanged=1, errors=errors)
    comments = f'<comments xmlns="{MAIN}"><commentList><comment ref="A1"/></commentList></comments>'
    extra: dict[str, bytes | None] = {
        "docProps/app.xml": b"<Properties/>",
        "xl/comments1.xml": comments.encode(),
        "xl/drawings/vmlDrawing1.vml": b"<xml><unclosed>",
        "xl/vbaProject.bin": b"\xd0\xcf\x11\xe0 no XML",
        "xl/worksheets/_rels/sheet1.xml.rels": relationships({"rId1": ("comments", "../comments1.xml")}).encode(),
        "customXml/item1.xml": b"<a/>",
        "xl/worksheets/": b"",
    }
    yield Case("package/extra-parts.xlsx", workbook(SHEETS, parts=extra), unchanged=2)
    macros = content_types(1).replace("spreadsheetml.sheet.main", "excel.sheet.macroEnabled.main").encode()
    data = workbook(SHEETS, parts={"[Content_Types].xml": macros})
    yield Case("package/macros.xlsm", data, "application/octet-stream", unchanged=2)


def encodings() -> Iterator[Case]:
    for name, codec, bom in (("le", "utf-16-le", b"\xff\xfe"), ("be", "utf-16-be", b"\xfe\xff")):
        data = bom + products(BALL, BOOK, CAFE, NOVEL).replace("UTF-8", "UTF-16").encode(codec)
        yield Case(f"package/sheet-utf-16{name}.xlsx", workbook(SHEETS, parts={FIRST_SHEET: data}), unchanged=4)
    parts: dict[str, bytes | None] = {}
    for part, xml in (
        ("xl/workbook.xml", main_part().decode()),
        ("xl/sharedStrings.xml", STRINGS),
        ("xl/worksheets/sheet1.xml", SHARED),
        ("_rels/.rels", relationships({"rId1": ("officeDocument", "xl/workbook.xml")})),
    ):
        parts[part] = b"\xff\xfe" + xml.replace("UTF-8", "UTF-16").encode("utf-16-le")
    yield Case("package/all-utf-16.xlsx", workbook({"Products": SHARED}, strings=STRINGS, parts=parts), unchanged=1)
    parts = {
        part: b"\xef\xbb\xbf" + xml.encode()
        for part, xml in (("xl/sharedStrings.xml", STRINGS), ("xl/worksheets/sheet1.xml", SHARED))
    }
    parts["xl/workbook.xml"] = b"\xef\xbb\xbf" + main_part()
    yield Case("package/bom.xlsx", workbook({"Products": SHARED}, strings=STRINGS, parts=parts), unchanged=1)
    data = XML.replace(DECLARATION, "").encode()
    yield Case("package/no-declaration.xlsx", workbook(SHEETS, parts={FIRST_SHEET: data}), unchanged=2)
    data = XML.replace(
        DECLARATION, "<?xml version='1.0'?>\r\n<!-- made by hand -->\n<?mso-application progid='Excel'?>"
    ).encode()
    yield Case("package/comment-before-root.xlsx", workbook(SHEETS, parts={FIRST_SHEET: data}), unchanged=2)
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]>'
    data = XML.replace(DECLARATION, bomb).replace("A round ball", "&c;").encode()
    book = workbook(SHEETS, parts={FIRST_SHEET: data})
    errors = [{"row": 2, "description": "undefined XML entity"}]
    yield Case("package/entities.xlsx", book, unchanged=1, errors=errors)
    data = XML.encode().replace("Café".encode(), b"Caf\xe9")
    book = workbook(SHEETS, parts={FIRST_SHEET: data})
    yield Case("package/invalid-utf-8.xlsx", book, detail=["Products", "row 3"])
    strict = {
        MAIN: "http://purl.oclc.org/ooxml/spreadsheetml/main",
        RELATIONSHIPS: "http://purl.oclc.org/ooxml/officeDocument/relationships",
    }
    data = workbook({"Products": SHARED}, strings=STRINGS, properties="<workbookPr/>", replacements=strict)
    yield Case("package/strict.xlsx", data, unchanged=1)
    prefixed = SHARED.replace("<", "<x:").replace("<x:/", "</x:").replace("<x:?", "<?").replace("xmlns=", "xmlns:x=")
    names = STRINGS.replace("<", "<x:").replace("<x:/", "</x:").replace("<x:?", "<?").replace("xmlns=", "xmlns:x=")
    yield Case("package/prefixes.xlsx", workbook({"Products": prefixed}, strings=names), unchanged=1)


def zips() -> Iterator[Case]:
    for name, options in (
        ("stored", PLAIN),
        ("descriptors-stored", Options(has_descriptors=True)),
        ("descriptors", Options(is_deflated=True, has_descriptors=True)),
        ("zip64", Options(is_deflated=True, is_zip64=True)),
        ("comment", Options(comment=b"written by a program")),
    ):
        yield Case(f"package/zip-{name}.xlsx", workbook(SHEETS, options=options), unchanged=2)
    encrypted = workbook(SHEETS, options=Options(is_encrypted=True))
    yield Case("package/zip-encrypted.xlsx", encrypted, detail=["Password"])
    book = workbook(SHEETS, options=PLAIN)
    yield Case("package/zip-half.xlsx", book[: len(book) // 2], detail=["Import error"])
    # a changed byte that leaves the XML valid: only the checksum shows it
    damaged = book.replace(b"A round ball", b"A round bell")
    yield Case("package/zip-damaged-sheet.xlsx", damaged, detail=["Products", "cannot be read"])
    book = workbook({"Products": SHARED}, strings=STRINGS, options=PLAIN)
    damaged = book.replace(b"<t>Ball</t>", b"<t>Bell</t>")
    yield Case("package/zip-damaged-strings.xlsx", damaged, detail=["sharedstrings.xml", "cannot be read"])


def cases() -> Iterator[Case]:
    for group in (names, missing_parts, encodings, zips):
        yield from group()
