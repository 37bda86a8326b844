"""Whom Schemathesis speaks as: staff, but a new account each time where a request ends its caller's own login. And what it does not try."""
import itertools, json, os, urllib.request

import schemathesis

SHOP, PASSWORD = os.environ["SHOP"], os.environ["SHOP_PASSWORD"]
ENDING = ["/api/logout/", "/api/logout/all/", "/api/password/"]
LISTS = ["category", "tag"]
numbers = itertools.count(1)


def post(path, **body):
    request = urllib.request.Request(SHOP + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=30))


def login(username):
    return post("/api/login/", username=username, password=PASSWORD)["token"]


class Bearer:
    def set(self, case, token, context):
        case.headers = case.headers or {}
        case.headers["Authorization"] = f"Bearer {token}"


@schemathesis.auth(refresh_interval=600).skip_for(path=ENDING)
class Staff(Bearer):
    def get(self, case, context):
        return login("staff")


@schemathesis.auth(refresh_interval=None).apply_to(path=ENDING)
class Newcomer(Bearer):
    def get(self, case, context):
        name = f"newcomer{next(numbers)}"
        post("/api/register/", username=name, email=f"{name}@example.com", password=PASSWORD)
        return login(name)


def unseen(name, value):
    """Whether a value that the schema refuses looks on the wire like one that it takes: no items, numbers among empty ones."""
    if name not in LISTS:
        return value in ([], {})
    items = value if isinstance(value, list) else [value]
    return isinstance(value, (int, dict)) or any(item in ("", None, [], {}) for item in items)


@schemathesis.hook
def filter_query(context, query):
    return not any(unseen(name, value) for name, value in (query or {}).items())
