"""Media types, multipart bodies, and files that are neither CSV nor a workbook."""

import gzip
import json
import struct
from collections.abc import Iterator

from .archive import archive
from .case import BALL, BOOK, TITLES, XLSX, Case, table
from .workbook import content_types, products, relationships, workbook

OCTETS, EXCEL = "application/octet-stream", "application/vnd.ms-excel"
CSV = table(TITLES, BALL, BOOK).encode()
CYRILLIC = table(TITLES, BOOK).encode("cp1251")
BOOK_FILE = workbook({"Products": products(BALL, BOOK)})
FORM = "multipart/form-data"
FREE, END_OF_CHAIN, FAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD


def media_types() -> Iterator[Case]:
    """What the bytes are decides, among the media types that are accepted."""
    for name, media_type in (("octets", OCTETS), ("excel", EXCEL), ("xlsx", XLSX), ("csv", "text/csv")):
        yield Case(f"formats/csv-as-{name}.csv", CSV, media_type, unchanged=2)
        yield Case(f"formats/workbook-as-{name}.xlsx", BOOK_FILE, media_type, unchanged=2)
    data = table(TITLES, BALL, separator=";").encode("utf-16")
    yield Case("formats/utf-16-as-excel.csv", data, EXCEL, unchanged=1)
    yield Case("formats/charset-as-excel.csv", CYRILLIC, f"{EXCEL}; charset=windows-1251", unchanged=1)
    for name, media_type in (("json", "application/json"), ("xml", "application/xml"), ("zip", "application/zip")):
        yield Case(f"formats/csv-as-{name}.csv", CSV, media_type, detail=["Unsupported media type"], status=415)
    yield Case("formats/upper-case-media-type.csv", CSV, "Text/CSV; Charset=UTF-8", unchanged=2)


def part(content: bytes, head: str) -> bytes:
    return f"--limit\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"


def multipart() -> Iterator[Case]:
    media_type, end = f"{FORM}; boundary=limit", b"--limit--\r\n"
    for name, head, content, count in (
        ("csv", 'name="file"; filename="products.csv"\r\nContent-Type: text/csv', CSV, 2),
        ("workbook", f'name="file"; filename="products.xlsx"\r\nContent-Type: {XLSX}', BOOK_FILE, 2),
        ("octets", f'name="upload"; filename="p.xlsx"\r\nContent-Type: {OCTETS}', BOOK_FILE, 2),
        ("excel-csv", f'name="f"; filename="products.csv"\r\nContent-Type: {EXCEL}', CSV, 2),
        ("no-type", 'name="file"; filename="products.csv"', CSV, 2),
        ("charset", 'name="file"; filename="p.csv"\r\nContent-Type: text/csv; charset=windows-1251', CYRILLIC, 1),
        ("cyrillic-filename", 'name="file"; filename="товары.csv"\r\nContent-Type: text/csv', CSV, 2),
        ("extended-filename", "name=file; filename*=UTF-8''%D1%82.csv\r\nContent-Type: text/csv", CSV, 2),
    ):
        yield Case(f"formats/multipart-{name}.bin", part(content, head) + end, media_type, unchanged=count)
    file = part(CSV, 'name="file"; filename="products.csv"\r\nContent-Type: text/csv')
    quoted = f'{FORM}; boundary="limit"'
    yield Case("formats/multipart-quoted-boundary.bin", file + end, quoted, unchanged=2)
    yield Case("formats/multipart-preamble.bin", b"ignored\r\n" + file + end + b"ignored", media_type, unchanged=2)
    invalid = ["Import error"]
    yield Case("formats/multipart-two-files.bin", file + file + end, media_type, detail=["one"])
    yield Case("formats/multipart-no-file.bin", part(b"1", 'name="a"') * 2 + end, media_type, detail=["file"])
    yield Case("formats/multipart-empty.bin", end, media_type, detail=["file"])
    yield Case("formats/multipart-unfinished.bin", file, media_type, detail=[""])
    yield Case("formats/multipart-no-boundary.bin", file + end, FORM, detail=["boundary"])
    yield Case("formats/multipart-other-boundary.bin", file + end, f"{FORM}; boundary=other", detail=[""])
    wrong = part(b"%PDF-1.7\n", 'name="file"; filename="products.pdf"\r\nContent-Type: application/pdf')
    yield Case("formats/multipart-pdf.bin", wrong + end, media_type, detail=["PDF"])
    yield Case(
        "formats/multipart-empty-file.bin", part(b"", 'name="f"; filename="a.csv"') + end, media_type, detail=invalid
    )


def compound_file(*streams: str, directory_at: int = 1) -> bytes:
    """Returns a compound file (MS-CFB) with empty streams and its directory in this sector of 512 bytes."""
    sectors = directory_at + 1
    fat = [END_OF_CHAIN if sector == directory_at else FREE for sector in range(128)]
    fat[0] = FAT
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<5H6x", 0x3E, 3, 0xFFFE, 9, 6)
    head += struct.pack("<9I", 0, 1, directory_at, 0, 4096, END_OF_CHAIN, 0, END_OF_CHAIN, 0)
    head += struct.pack("<109I", 0, *[FREE] * 108)
    entries = [directory_entry("Root Entry", 5, FREE, 1)]
    for index, stream in enumerate(streams, 1):
        entries.append(directory_entry(stream, 2, index + 1 if index < len(streams) else FREE, FREE))
    entries += [directory_entry("", 0, FREE, FREE)] * (4 - len(entries))
    between = bytes(512 * (sectors - 2))
    return head + struct.pack("<128I", *fat) + between + b"".join(entries)


def directory_entry(name: str, kind: int, right: int, child: int) -> bytes:
    encoded = (name + "\0").encode("utf-16-le") if name else b""
    head = encoded.ljust(64, b"\0") + struct.pack("<H2B3I", len(encoded), kind, 1, FREE, right, child)
    return head + bytes(36) + struct.pack("<IQ", END_OF_CHAIN, 0)


def other_formats() -> Iterator[Case]:
    ods = {"mimetype": b"application/vnd.oasis.opendocument.spreadsheet", "content.xml": b"<office:document-content/>"}
    parts: dict[str, bytes | None] = {
        "[Content_Types].xml": content_types(1).replace("/xl/workbook.xml", "/xl/workbook.bin").encode(),
        "_rels/.rels": relationships({"rId1": ("officeDocument", "xl/workbook.bin")}).encode(),
        "xl/workbook.xml": None,
        "xl/workbook.bin": b"\x83\x01\x00",
        "xl/_rels/workbook.xml.rels": None,
        "xl/_rels/workbook.bin.rels": relationships({"rId1": ("worksheet", "worksheets/sheet1.bin")}).encode(),
    }
    word = {
        "[Content_Types].xml": b"<Types/>",
        "_rels/.rels": relationships({"rId1": ("officeDocument", "word/document.xml")}).encode(),
        "word/document.xml": b"<w:document xmlns:w='w'/>",
    }
    html = b"<html><head><meta charset=utf-8></head><body><table><tr><th>ID<th>Name</tr></table></body></html>"
    xml = b'<?xml version="1.0"?>\n<Workbook xmlns="urn:schemas-microsoft-com:office:spreadsheet"/>'
    objects = json.dumps([{"id": 1, "name": "Ball", "price": 19.99}]).encode()
    for name, content, detail in (
        ("excel-97.xls", compound_file("Workbook"), [".xls"]),
        ("excel-95.xls", compound_file("Book"), [".xls"]),
        ("encrypted.xlsx", compound_file("EncryptedPackage", "EncryptionInfo"), ["password"]),
        (
            "encrypted-late-directory.xlsx",
            compound_file("EncryptionInfo", "EncryptedPackage", directory_at=9),
            ["password"],
        ),
        ("binary.xlsb", workbook({"Products": products(BALL)}, parts=parts), [".xlsb"]),
        ("open-document.ods", archive(ods), [".ods"]),
        ("document.docx", archive(word), ["Import error"]),
        ("numbers.numbers", archive({"Index/Document.iwa": b"\0", "preview.jpg": b"\xff\xd8"}), ["Import error"]),
        ("archive.zip", archive({"products.csv": CSV}), ["Import error"]),
        ("empty.zip", archive({}), ["Import error"]),
        ("portable.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n", ["PDF"]),
        ("html-table.xls", html, ["HTML"]),
        ("spreadsheet-2003.xml", xml, ["XML"]),
        ("objects.json", objects, ["JSON"]),
        ("compressed.csv.gz", b"\x1f\x8b\x08\0\0\0\0\0\2\3" + gzip.compress(CSV, mtime=0)[10:], ["gzip"]),
        ("picture.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ["Import error"]),
        ("empty.xlsx", b"", ["empty"]),
        ("line-ends-only.csv", b"\r\n\r\n\n", ["header row"]),
        ("zeros.bin", bytes(1000), ["Import error"]),
        ("sentence.csv", b"Dear shop, here are our products.\n", ["column 1"]),
    ):
        for kind, media_type in (("", OCTETS), ("-excel", EXCEL)):
            if kind and name != "excel-97.xls":
                continue
            stem, _, extension = name.partition(".")
            yield Case(f"formats/{stem}{kind}.{extension}", content, media_type, detail=detail)
    yield Case("formats/empty.csv", b"", detail=["empty"])
    yield Case("formats/bom-only.csv", b"\xef\xbb\xbf", detail=["Import error"])


def cases() -> Iterator[Case]:
    for group in (media_types, multipart, other_formats):
        yield from group()
