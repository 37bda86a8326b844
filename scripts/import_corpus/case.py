"""One file of the corpus with its expected outcome, and the products that the files refer to."""

import csv
import io
import json
from dataclasses import dataclass, field
from typing import Any

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
MEDIA_TYPES = {"csv": "text/csv", "xlsx": XLSX}

# The catalogue that the test creates (CATALOGUE in tests/it/import/corpus.rs), as rows of an export. A file that
# repeats such a row is `unchanged` only if every cell was read exactly.
TITLES = ["ID", "Name", "Description", "Category", "Price", "Created at", "Tags"]
BALL = ["1", "Ball", "A round ball", "Sport", "19.99", "2023-08-08T12:00:00Z", "eco, new"]
BOOK = ["2", "Книга", "О море", "Books", "1299.90", "2024-02-29T23:59:59Z", ""]
CAFE = ["3", "Café crème", "two\nlines", "Sport", "0.10", "2026-11-23T13:01:47.542885Z", "été"]
NOVEL = ["4", "日本語の本", "", "Books", "5.00", "2000-01-01T00:00:00Z", ""]

Json = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A file and what an import of it returns.

    The counts are those of `on_error=skip`. With `on_error=abort`, a file with `errors` is refused and all its rows
    count as skipped.
    """

    # path below tests/data/import
    name: str
    content: bytes
    # by default that of the file name
    media_type: str = ""
    query: str = ""
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    # One object for each invalid row: `row`, `sheet` unless it is the first, and for each field a part of its message.
    # The field `*` stands for any field.
    errors: list[Json] = field(default_factory=list)
    # Parts of the message of a file that is refused as a whole; `None` for a file that is read.
    detail: list[str] | None = None
    # The status of a file that is refused as a whole.
    status: int = 400
    # Fields of products after the import, by id.
    products: dict[str, Json] = field(default_factory=dict)

    def table_row(self) -> str:
        """Returns the line of the table of expected outcomes."""
        media_type = self.media_type or MEDIA_TYPES[self.name.rpartition(".")[2]]
        outcome: Json
        if self.detail is not None:
            outcome = {"status": self.status, "detail": self.detail}
        else:
            counts = {"created": self.created, "updated": self.updated, "unchanged": self.unchanged}
            outcome = {"status": 400 if self.errors else 200, **counts, "skipped": len(self.errors)}
            outcome |= {"errors": self.errors} if self.errors else {}
            outcome |= {"products": self.products} if self.products else {}
        row = {"file": self.name, "media_type": media_type, "query": self.query, **outcome}
        return json.dumps(row, ensure_ascii=False)


def table(*rows: list[str], separator: str = ",", end: str = "\r\n") -> str:
    """Returns rows as CSV, with quotes where they are needed."""
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator=end).writerows(rows)
    return text.getvalue()


def changed(row: list[str], **values: str) -> list[str]:
    """Returns a row with other values, by column: `changed(BALL, price="7")`."""
    columns = ["id", "name", "description", "category", "price", "created_at", "tags"]
    return [values.get(column, value) for column, value in zip(columns, row, strict=True)]


def new(name: str, price: str = "7.00", description: str = "", tags: str = "") -> list[str]:
    """Returns a row that creates a product."""
    return ["", name, description, "Sport", price, "", tags]
