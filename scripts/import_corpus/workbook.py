"""Builds workbooks (ECMA-376) from sheets, with every part replaceable."""

import re
from datetime import UTC, datetime
from xml.sax.saxutils import escape, quoteattr

from .archive import DEFLATED, Options, archive
from .case import TITLES

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONSHIPS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
DECLARATION = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
# the cell format 1 shows a date with seconds, 2 one with minutes, 3 two decimals
STYLES = (
    f'<styleSheet xmlns="{MAIN}"><numFmts count="2"><numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd\\ hh:mm:ss"/>'
    '<numFmt numFmtId="165" formatCode="dd/mm/yyyy hh:mm"/></numFmts>'
    '<fonts count="1"><font><sz val="11"/><name val="Calibri"/></font></fonts>'
    '<fills count="1"><fill><patternFill patternType="none"/></fill></fills>'
    "<borders count='1'><border><left/><right/><top/><bottom/><diagonal/></border></borders>"
    '<cellStyleXfs count="1"><xf/></cellStyleXfs>'
    '<cellXfs count="4"><xf numFmtId="0"/><xf numFmtId="164" applyNumberFormat="1"/>'
    '<xf numFmtId="165" applyNumberFormat="1"/><xf numFmtId="2" applyNumberFormat="1"/></cellXfs></styleSheet>'
)
EPOCH = datetime(1899, 12, 30, tzinfo=UTC)
COLUMNS = "ABCDEFGHIJ"


def serial(moment: str) -> str:
    """Returns the serial date of a moment, days since 1899-12-30."""
    days = (datetime.fromisoformat(moment.replace("Z", "+00:00")) - EPOCH).total_seconds() / 86400
    return repr(days).removesuffix(".0")


def text(reference: str, value: str) -> str:
    """Returns a cell with an inline string."""
    return f'<c r="{reference}" t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'


def number(reference: str, value: str, style: int = 0) -> str:
    return f'<c r="{reference}" s="{style}"><v>{value}</v></c>'


def cells(row: int, values: list[str]) -> str:
    """Returns the cells of a row of an export: numbers and dates are typed, empty values have no cell."""
    written = []
    for column, (letter, value) in enumerate(zip(COLUMNS, values, strict=False)):
        if not value:
            continue
        if column in (0, 4) and re.fullmatch(r"-?\d+(\.\d+)?", value):
            written.append(number(f"{letter}{row}", value))
        elif column == 5 and value.endswith("Z"):
            written.append(number(f"{letter}{row}", serial(value), 1))
        else:
            written.append(text(f"{letter}{row}", value))
    return "".join(written)


def row(index: int, content: str, attributes: str = "") -> str:
    return f'<row r="{index}"{attributes}>{content}</row>'


def rows(*values: list[str], first: int = 1) -> str:
    """Returns the XML of these rows of an export."""
    return "".join(row(index, cells(index, line)) for index, line in enumerate(values, first))


def sheet(content: str, before: str = "", after: str = "", root: str = f'worksheet xmlns="{MAIN}"') -> str:
    """Returns the XML of a sheet whose rows are `content`."""
    name = root.split(" ")[0]
    return f"{DECLARATION}<{root}>{before}<sheetData>{content}</sheetData>{after}</{name}>"


def products(*values: list[str]) -> str:
    """Returns the XML of a sheet with the titles of an export and these rows."""
    return sheet(rows(TITLES, *values))


def shared_strings(*items: str) -> str:
    return f'{DECLARATION}<sst xmlns="{MAIN}">' + "".join(f"<si>{item}</si>" for item in items) + "</sst>"


def workbook(
    sheets: dict[str, str],
    *,
    strings: str = "",
    states: dict[str, str] | None = None,
    properties: str = "",
    targets: str = "worksheets/",
    main: str = "xl/workbook.xml",
    parts: dict[str, bytes | None] | None = None,
    names: dict[str, str] | None = None,
    replacements: dict[str, str] | None = None,
    options: Options = DEFLATED,
) -> bytes:
    """Returns a workbook with these sheets by name.

    `states` are attributes of sheets, `properties` elements before them, `targets` precedes the names of sheet parts in
    relationships, `main` is the target of the package's relationship, `parts` replaces, removes or adds parts, `names`
    renames parts, but not in the relationships, and `replacements` replaces texts in all parts.
    """
    contents: dict[str, bytes | None] = {
        "[Content_Types].xml": content_types(len(sheets), bool(strings)).encode(),
        "_rels/.rels": relationships({"rId1": ("officeDocument", main)}).encode(),
        "xl/workbook.xml": main_part(sheets, states or {}, properties).encode(),
    }
    of_workbook = {f"rId{index}": ("worksheet", f"{targets}sheet{index}.xml") for index in range(1, len(sheets) + 1)}
    of_workbook["rId100"] = ("styles", "styles.xml")
    if strings:
        of_workbook["rId101"] = ("sharedStrings", "sharedStrings.xml")
        contents["xl/sharedStrings.xml"] = strings.encode()
    contents["xl/_rels/workbook.xml.rels"] = relationships(of_workbook).encode()
    contents["xl/styles.xml"] = (DECLARATION + STYLES).encode()
    for index, xml in enumerate(sheets.values(), 1):
        contents[f"xl/worksheets/sheet{index}.xml"] = xml.encode()
    contents |= parts or {}
    written = {}
    for name, content in contents.items():
        if content is not None:
            for old, replacement in (replacements or {}).items():
                content = content.replace(old.encode(), replacement.encode())
            written[(names or {}).get(name, name)] = content
    return archive(written, options)


def relationships(targets: dict[str, tuple[str, str]]) -> str:
    """Returns a relationships part: kind and target by id."""
    written = "".join(
        f'<Relationship Id="{name}" Type="{RELATIONSHIPS}/{kind}" Target="{target}"/>'
        for name, (kind, target) in targets.items()
    )
    return f'{DECLARATION}<Relationships xmlns="{PACKAGE}/relationships">{written}</Relationships>'


def main_part(sheets: dict[str, str], states: dict[str, str], properties: str) -> str:
    written = "".join(
        f'<sheet name={quoteattr(name)} sheetId="{index}"{states.get(name, "")} r:id="rId{index}"/>'
        for index, name in enumerate(sheets, 1)
    )
    root = f'<workbook xmlns="{MAIN}" xmlns:r="{RELATIONSHIPS}">'
    return f"{DECLARATION}{root}{properties}<sheets>{written}</sheets></workbook>"


def content_types(sheet_count: int, has_strings: bool = False) -> str:
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    overrides = {"workbook": f"{kind}.sheet.main+xml", "styles": f"{kind}.styles+xml"}
    overrides |= {f"worksheets/sheet{index}": f"{kind}.worksheet+xml" for index in range(1, sheet_count + 1)}
    overrides |= {"sharedStrings": f"{kind}.sharedStrings+xml"} if has_strings else {}
    written = "".join(
        f'<Override PartName="/xl/{name}.xml" ContentType="{media_type}"/>' for name, media_type in overrides.items()
    )
    return (
        f'{DECLARATION}<Types xmlns="{PACKAGE}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Default Extension="xml" ContentType="application/xml"/>{written}</Types>'
    )
