"""What a client of the shop does, for the generated clients in Python.

client_test.py compares the printed observations with the expected ones; scenario.ts does the same in TypeScript.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

SHOP, PASSWORD = os.environ["SHOP"], os.environ["SHOP_PASSWORD"]


@dataclass
class Answer:
    """A response; `data` is an object of the generated client, `errors` are the keys of an error's body."""

    status: int
    headers: Mapping[str, str]
    data: Any
    errors: Iterable[str] = ()

    def header(self, name: str) -> str:
        """Returns a header, or an empty text; the clients differ in the case of the names."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), "")


class Client(Protocol):
    """A generated client behind names of our own."""

    def authorize(self, token: str) -> None: ...
    def register(self, **body: str) -> Answer: ...
    def log_in(self, **body: str) -> Answer: ...
    def list(self, **query: Any) -> Answer: ...
    def get(self, product_id: int) -> Answer: ...
    def create(self, **body: Any) -> Answer: ...
    def update(self, product_id: int, if_match: str, **body: Any) -> Answer: ...
    def remove(self, product_id: int, if_match: str) -> Answer: ...
    def export_file(self) -> Answer: ...
    def import_file(self, file: bytes) -> Answer: ...


def failure(answer: Answer) -> list[Any]:
    return [answer.status, *sorted(answer.errors)]


def data(answer: Answer) -> Any:
    if answer.status >= 300:
        raise AssertionError(f"unexpected response: {failure(answer)}")
    return answer.data


def next_cursor(answer: Answer) -> str | None:
    link = re.search('<([^>]*)>; rel="next"', answer.header("Link"))
    return parse_qs(urlsplit(link[1]).query)["cursor"][0] if link else None


def page_lengths(client: Client) -> list[int]:
    page = client.list(page_size=90)
    lengths = [len(data(page))]
    while cursor := next_cursor(page):
        page = client.list(page_size=90, cursor=cursor)
        lengths.append(len(data(page)))
    return lengths


def observe(name: str, client: Client) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    account = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    seen["register"] = client.register(**account).status
    seen["register again"] = failure(client.register(**account))
    seen["log in with a wrong password"] = failure(client.log_in(username=name, password="wrong password"))
    seen["list without a token"] = failure(client.list())
    client.authorize(data(client.log_in(username="staff", password=PASSWORD)).token)

    category = data(client.list(page_size=1))[0].category_name
    request = {"name": f"Kettle of {name}", "price": 19.99, "category_name": category, "tags": ["steel", "new"]}
    creation = client.create(**request)
    product = data(creation)
    seen["create"] = [creation.status, product.name == request["name"], product.price, product.tags]
    seen["create in an unknown category"] = failure(client.create(**{**request, "category_name": "No category"}))

    filters = {"category": [category], "price_max": 19.99, "created_after": product.created_at, "ordering": "-price"}
    seen["list with filters"] = [found.id == product.id for found in data(client.list(**filters))]
    seen["follow pages"] = page_lengths(client)

    etag = creation.header("ETag")
    update = client.update(product.id, etag, price=17.5)
    seen["patch with If-Match"] = [update.status, data(update).price]
    seen["patch with an old If-Match"] = failure(client.update(product.id, etag, price=1.0))
    seen["get an unknown product"] = failure(client.get(2**40))

    file = data(client.export_file())
    seen["export"] = file[:2] == b"PK"
    report = data(client.import_file(file))
    counts = [report.created, report.updated, report.unchanged, report.skipped]
    seen["import the export"] = [*counts, len(report.errors)]
    seen["import no table"] = failure(client.import_file(b"no table"))
    seen["delete"] = client.remove(product.id, update.header("ETag")).status
    return seen


def run(name: str, client: Client) -> None:
    print(json.dumps(observe(name, client)))
