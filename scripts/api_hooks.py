"""Hooks of Schemathesis: authentication, and generated requests that are left out.

Requests are sent as staff. An operation that ends the sessions of its caller gets a new account for each request.
"""

import itertools
import json
import os
import re
import urllib.request
from typing import Any

import schemathesis

SHOP, PASSWORD = os.environ["SHOP"], os.environ["SHOP_PASSWORD"]
SESSION_ENDING_PATHS = ["/api/logout/", "/api/logout/all/", "/api/password/"]
LIST_PARAMETERS = ["id", "category", "tag", "fields"]
DATE_PARAMETERS = ["created_after", "created_before"]
PRICE_PARAMETERS = ["price_min", "price_max"]
TEXT_FIELDS = [
    "name", "description", "category_name", "username", "email", "password", "old_password", "new_password", "refresh",
]  # fmt: skip
DECIMAL = re.compile(r"\s*[0-9]+(\.[0-9]{1,2})?\s*")
DATE = re.compile(r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}")
account_numbers = itertools.count(1)


def post(path: str, **body: str) -> Any:
    request = urllib.request.Request(SHOP + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=30))


def log_in(username: str) -> str:
    token: str = post("/api/login/", username=username, password=PASSWORD)["token"]
    return token


class Bearer:
    def set(self, case: schemathesis.Case, token: str, context: Any) -> None:
        case.headers = case.headers or {}
        case.headers["Authorization"] = f"Bearer {token}"


@schemathesis.auth(refresh_interval=600).skip_for(path=SESSION_ENDING_PATHS)
class Staff(Bearer):
    def get(self, case: schemathesis.Case, context: Any) -> str:
        return log_in("staff")


@schemathesis.auth(refresh_interval=None).apply_to(path=SESSION_ENDING_PATHS)
class NewAccount(Bearer):
    def get(self, case: schemathesis.Case, context: Any) -> str:
        name = f"newcomer{next(account_numbers)}"
        post("/api/register/", username=name, email=f"{name}@example.com", password=PASSWORD)
        return log_in(name)


def is_valid_when_serialized(name: str, value: Any) -> bool:
    """Returns whether the server can accept a value that violates the schema of a parameter.

    In the query string, empty lists and objects disappear, numbers become text, and a text of digits becomes a number.
    An empty text counts as absent, and a date is accepted for a moment.
    """
    if name in DATE_PARAMETERS and isinstance(value, str) and DATE.match(value):
        return True
    if name in PRICE_PARAMETERS and isinstance(value, str) and DECIMAL.fullmatch(value):
        return True
    if name not in LIST_PARAMETERS:
        return value in ("", [], {})
    items = value if isinstance(value, list) else [value]
    if isinstance(value, int | dict) or any(item in ("", None, [], {}) for item in items):
        return True
    return name == "id" and any(isinstance(item, str) and item.strip(" -").isdecimal() for item in items)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_accepted_beyond_schema(body: dict[str, Any]) -> bool:
    """Returns whether the server can accept a body that violates its schema: numbers for texts, and prices as text."""
    tags = body.get("tags")
    texts = [body.get(name) for name in TEXT_FIELDS] + (tags if isinstance(tags, list) else [])
    price = body.get("price")
    return any(is_number(text) for text in texts) or (isinstance(price, str) and DECIMAL.fullmatch(price) is not None)


@schemathesis.hook
def filter_case(context: Any, case: schemathesis.Case) -> bool:
    # clients generated for complete products need required keys, which a list with `fields` does not have
    if case.operation.path == "/api/products/" and "fields" in (case.query or {}):
        return False
    if any(is_valid_when_serialized(name, value) for name, value in (case.query or {}).items()):
        return False
    return not (isinstance(case.body, dict) and is_accepted_beyond_schema(case.body))
