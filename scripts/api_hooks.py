"""Hooks of Schemathesis: authentication, and generated requests that are left out.

Requests are sent as staff. An operation that ends the sessions of its caller gets a new account for each request.
"""

import itertools
import json
import os
import urllib.request
from typing import Any

import schemathesis

SHOP, PASSWORD = os.environ["SHOP"], os.environ["SHOP_PASSWORD"]
SESSION_ENDING_PATHS = ["/api/logout/", "/api/logout/all/", "/api/password/"]
LIST_PARAMETERS = ["id", "category", "tag", "fields"]
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
    """Returns whether a value that violates the schema can become a valid one in the query string.

    Empty lists and objects disappear, numbers become text, and a text of digits becomes a number.
    """
    if name not in LIST_PARAMETERS:
        return value in ([], {})
    items = value if isinstance(value, list) else [value]
    if isinstance(value, int | dict) or any(item in ("", None, [], {}) for item in items):
        return True
    return name == "id" and any(isinstance(item, str) and item.strip(" -").isdecimal() for item in items)


@schemathesis.hook
def filter_query(context: Any, query: dict[str, Any] | None) -> bool:
    return not any(is_valid_when_serialized(name, value) for name, value in (query or {}).items())
