#!/usr/bin/env python3
"""Writes the corpus of import files (tests/data/import) and the table of their expected outcomes.

The files are small and have nothing but what they are about. tests/it/import/corpus.rs imports each of them.
"""

import argparse
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from import_corpus import changes, columns, csv_dialects, csv_records, formats, packages, sheets, values  # noqa: E402
from import_corpus.case import Case  # noqa: E402

CORPUS = HERE.parent.parent / "tests/data/import"
TABLE = CORPUS / "expected.jsonl"
MODULES = (csv_records, csv_dialects, columns, packages, sheets, values, changes, formats)


def all_cases() -> Iterator[Case]:
    seen = set()
    for module in MODULES:
        for case in module.cases():
            assert case.name not in seen, f"two files have the name {case.name}"
            seen.add(case.name)
            yield case


def table_of(cases: list[Case]) -> str:
    return "".join(case.table_row() + "\n" for case in cases)


def write(cases: list[Case]) -> None:
    for path in outdated_files({case.name for case in cases}):
        path.unlink()
    for case in cases:
        path = CORPUS / case.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or not is_equal(path.read_bytes(), case.content):
            path.write_bytes(case.content)
    TABLE.write_text(table_of(cases))
    size = sum(len(case.content) for case in cases)
    print(f"{len(cases)} files, {size} bytes")


def outdated_files(names: set[str]) -> list[Path]:
    files = [path for path in CORPUS.rglob("*") if path.is_file() and path != TABLE]
    return [path for path in files if str(path.relative_to(CORPUS)) not in names]


def is_equal(left: bytes, right: bytes) -> bool:
    """Returns whether files are equal, apart from how a version of zlib compresses the same content."""
    return left == right or (unpacked(left) is not None and unpacked(left) == unpacked(right))


def unpacked(content: bytes) -> list[tuple[str, int, int, bytes]] | None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as book:
            entries = book.infolist()
            return [(entry.filename, entry.flag_bits, entry.compress_type, book.read(entry)) for entry in entries]
    except (zipfile.BadZipFile, RuntimeError):
        return None


def check(cases: list[Case]) -> bool:
    """Returns whether all files equal the generated ones. Prints the names of those that differ."""
    wrong = [str(path.relative_to(CORPUS)) for path in outdated_files({case.name for case in cases})]
    for case in cases:
        path = CORPUS / case.name
        if not path.exists() or not is_equal(path.read_bytes(), case.content):
            wrong.append(case.name)
    if not TABLE.exists() or TABLE.read_text() != table_of(cases):
        wrong.append(TABLE.name)
    for name in wrong:
        print(f"tests/data/import/{name} differs: run python3 scripts/import_corpus")
    return not wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the files with the generated ones")
    arguments = parser.parse_args()
    cases = list(all_cases())
    if arguments.check:
        return 0 if check(cases) else 1
    write(cases)
    return 0


if __name__ == "__main__":
    sys.exit(main())
