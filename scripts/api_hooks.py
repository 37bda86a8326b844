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


@schemathesis.hook
def filter_query(context, query):
    """Whether a wrong value shows in what is sent: an empty list is sent as nothing, a number like a list of one."""
    values = (query or {}).items()
    return not any(value in ([], {}) or (name in LISTS and isinstance(value, int)) for name, value in values)
