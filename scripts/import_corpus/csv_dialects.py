"""CSV: separators, decimal commas and charsets."""

from collections.abc import Iterator

from .case import BALL, BOOK, CAFE, NOVEL, TITLES, Case, changed, new, table

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t"}
NBSP, NARROW_NBSP = "\u00a0", "\u202f"


def separators() -> Iterator[Case]:
    for name, separator in SEPARATORS.items():
        text = table(TITLES, BALL, BOOK, CAFE, separator=separator)
        yield Case(f"csv/separator-{name}.csv", text.encode(), unchanged=3)
        yield Case(f"csv/sep-line-{name}.csv", f"sep={separator}\r\n{text}".encode(), unchanged=3)
        wrong = table(TITLES, changed(BALL, price="x"), separator=separator)
        errors = [{"row": 2, "price": "A valid number is required."}]
        # a spreadsheet does not show the line `sep=`, so that its first row has the titles
        yield Case(f"csv/sep-line-row-number-{name}.csv", f"sep={separator}\r\n{wrong}".encode(), errors=errors)
    text = table(TITLES, BALL, separator=";", end="\n")
    yield Case("csv/sep-line-bom.csv", f"sep=;\n{text}".encode("utf-8-sig"), unchanged=1)
    yield Case("csv/sep-line-cr.csv", b"sep=;\rID;Price\r1;19,99\r", unchanged=1)
    yield Case("csv/sep-line-unsupported.csv", b"sep=|\r\nID|Price\r\n1|19.99\r\n", detail=["sep"])
    # one column needs no separator
    yield Case("csv/separator-none.csv", b"ID\r\n1\r\n2\r\n", unchanged=2)
    yield Case("csv/separator-pipe.csv", b"ID|Name|Price\r\n1|Ball|19.99\r\n", detail=["separated by |"])
    yield Case("csv/separator-semicolon-with-commas.csv", b"ID;Description\n1;a, b, c\n", updated=1)
    yield Case("csv/separator-comma-with-semicolons.csv", b"ID,Description\n1,a; b; c; d\n", updated=1)
    yield Case("csv/separator-in-quoted-title.csv", b'"ID";"Price"\n"1";"19,99"\n', unchanged=1)
    text = "ID,Price\n1,19.99\n2;1299.90\n"
    yield Case("csv/separator-changes.csv", text.encode(), unchanged=1, errors=[{"row": 3, "*": ""}])


def decimal_commas() -> Iterator[Case]:
    for name, separator, kinds in (("semicolon", ";", 7), ("tab", "\t", 2)):
        for kind, price in (
            ("comma", "1299,90"),
            ("space", "1 299,90"),
            ("nbsp", f"1{NBSP}299,90"),
            ("narrow-nbsp", f"1{NARROW_NBSP}299,90"),
            ("point", "1299.90"),
            ("one-digit", "1299,9"),
            ("padded", " 1299,90 "),
        )[:kinds]:
            text = table(["ID", "Price"], ["2", price], separator=separator)
            yield Case(f"csv/price-{kind}-{name}.csv", text.encode(), unchanged=1)
    for kind, price in (
        ("ambiguous", "1,299"),
        ("ambiguous-millions", "1,299,000"),
        ("thousands-point", "1.299"),
        ("letters", "12,9O"),
        ("currency", "19,99 €"),
        ("wrong-groups", "12 99,90"),
        ("three-decimals", "12,345"),
    ):
        text = table(["ID", "Price"], ["2", price], ["1", "19,99"], separator=";")
        errors = [{"row": 2, "price": ""}]
        yield Case(f"csv/price-{kind}.csv", text.encode(), unchanged=1, errors=errors)
    for name, value in (("rounded", "1.3E+03"), ("rounded-integer", "1e3")):
        data = f"ID,Price\n2,{value}\n1,19.99\n".encode()
        yield Case(f"csv/price-{name}.csv", data, unchanged=1, errors=[{"row": 2, "price": "rounded"}])
    for name, value in (("id-grouped", "1,000"), ("id-grouped-by-points", "1.000")):
        data = f"ID;Price\n{value};7\n2;1299,90\n".encode()
        yield Case(f"csv/{name}.csv", data, unchanged=1, errors=[{"row": 2, "id": "A valid integer is required."}])
    # beside a comma as the separator a decimal comma is an error, never another price
    text = 'ID,Price\n2,"1299,90"\n1,19.99\n'
    yield Case("csv/price-comma-comma.csv", text.encode(), unchanged=1, errors=[{"row": 2, "price": ""}])
    text = "ID,Price\n2,1299,90\n1,19.99\n"
    yield Case("csv/price-comma-splits.csv", text.encode(), unchanged=1, errors=[{"row": 2, "*": ""}])
    text = table(TITLES, new("Lamp", "12,5"), new("Chair", "1 234 567,89"), separator=";")
    prices = {"5": {"price": 12.5}, "6": {"price": 1234567.89}}
    yield Case("csv/price-comma-created.csv", text.encode(), created=2, products=prices)


def unicode_charsets() -> Iterator[Case]:
    text = table(TITLES, BALL, BOOK, CAFE, NOVEL)
    yield Case("csv/utf-8-bom.csv", text.encode("utf-8-sig"), unchanged=4)
    yield Case("csv/utf-8-charset.csv", text.encode(), 'text/csv; charset="UTF-8"; header=present', unchanged=4)
    for name, codec, bom in (("le", "utf-16-le", b"\xff\xfe"), ("be", "utf-16-be", b"\xfe\xff")):
        data = bom + text.encode(codec)
        yield Case(f"csv/utf-16{name}.csv", data, unchanged=4)
        yield Case(f"csv/utf-16{name}-charset.csv", data, "text/csv; charset=utf-16", unchanged=4)
        # Excel's "Unicode text"
        tabs = table(TITLES, BALL, BOOK, CAFE, NOVEL, separator="\t")
        yield Case(f"csv/utf-16{name}-tab.csv", bom + tabs.encode(codec), unchanged=4)
        yield Case(f"csv/utf-16{name}-half-unit.csv", data + b"\n", unchanged=4, errors=[{"row": 6, "*": ""}])
    yield Case("csv/utf-16le-without-bom.csv", text.encode("utf-16-le"), detail=["UTF-16"])
    # the byte order mark precedes the label (WHATWG Encoding, "decode")
    yield Case(
        "csv/utf-8-bom-other-charset.csv", text.encode("utf-8-sig"), "text/csv; charset=windows-1251", unchanged=4
    )


def legacy_charsets() -> Iterator[Case]:
    for charset, codec, rows in (
        ("windows-1251", "cp1251", [BALL, BOOK]),
        ("WINDOWS-1251", "cp1251", [BALL, BOOK]),
        ("cp1251", "cp1251", [BOOK]),
        ("koi8-r", "koi8-r", [BOOK]),
        ("ibm866", "cp866", [BOOK]),
        ("iso-8859-5", "iso8859-5", [BOOK]),
        ("iso-8859-1", "latin-1", [BALL, CAFE]),
        ("windows-1252", "cp1252", [CAFE]),
        ("macintosh", "mac-roman", [CAFE]),
        ("Shift_JIS", "shift_jis", [BALL, NOVEL]),
        ("euc-jp", "euc-jp", [NOVEL]),
        ("iso-2022-jp", "iso2022_jp", [NOVEL]),
        ("gb18030", "gb18030", [NOVEL]),
        ("us-ascii", "ascii", [BALL]),
    ):
        data = table(TITLES, *rows).encode(codec)
        name = f"csv/charset-{charset}{'-upper' if charset.isupper() else ''}.csv".lower()
        yield Case(name, data, f"text/csv; charset={charset}", unchanged=len(rows))
    text = table(TITLES, changed(BOOK, price="1299,90"), separator=";").encode("cp1251")
    yield Case("csv/charset-windows-1251-semicolon.csv", text, "text/csv;charset=windows-1251", unchanged=1)
    for name in ("klingon", "utf-7"):
        media_type = f"text/csv; charset={name}"
        yield Case(f"csv/charset-{name}.csv", table(TITLES, BALL).encode(), media_type, detail=[name], status=415)
    # Shift_JIS in which the second byte of a character is a backslash, a quote is not one
    text = table(TITLES, new("表示", description="ソ\nニ")).encode("shift_jis")
    expected = {"5": {"name": "表示", "description": "ソ\nニ"}}
    yield Case("csv/charset-shift_jis-backslash.csv", text, "text/csv; charset=shift_jis", created=1, products=expected)


def invalid_bytes() -> Iterator[Case]:
    data = table(TITLES, BALL, CAFE, NOVEL).encode()
    data = data.replace("Café".encode(), b"Caf\xe9")
    yield Case("csv/invalid-bytes-in-name.csv", data, unchanged=2, errors=[{"row": 3, "name": "UTF-8"}])
    data = table(TITLES, BALL, BOOK, new("Plain")).encode("cp1251")
    errors = [{"row": 3, "name": "UTF-8", "description": "UTF-8"}]
    yield Case("csv/invalid-bytes-of-windows-1251.csv", data, unchanged=1, created=1, errors=errors)
    data = table(["ID", "Náme"], ["1", "Ball"]).encode("latin-1")
    yield Case("csv/invalid-bytes-in-title.csv", data, detail=["column 2"])
    data = table(TITLES, NOVEL, BALL).encode("shift_jis").replace("本".encode("shift_jis"), b"\x96\x20")
    errors = [{"row": 2, "name": ""}]
    yield Case("csv/invalid-bytes-of-shift_jis.csv", data, "text/csv; charset=shift_jis", unchanged=1, errors=errors)
    data = b"\xff\xfe" + table(TITLES, BALL, BOOK).encode("utf-16-le").replace(b"\x1a\x04", b"\x1a\xd8")
    yield Case("csv/invalid-surrogate.csv", data, unchanged=1, errors=[{"row": 3, "name": ""}])


def cases() -> Iterator[Case]:
    for group in (separators, decimal_commas, unicode_charsets, legacy_charsets, invalid_bytes):
        yield from group()
