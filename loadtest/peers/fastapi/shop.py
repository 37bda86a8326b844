"""Login, list, update and export with FastAPI and asyncpg. One statement returns the list as JSON; Redis holds it until
the next write."""

import asyncio, base64, hashlib, hmac, os, tempfile, time
from contextlib import asynccontextmanager

import asyncpg, jwt, xlsxwriter
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel
from redis.asyncio import Redis
from starlette.background import BackgroundTask

SECRET = os.environ["JWT_SECRET"]
LIST, LIST_SECONDS = "peer-fastapi:products", 300
WORKBOOK = {
    "constant_memory": True,
    "strings_to_formulas": False,
    "strings_to_urls": False,
    "remove_timezone": True,
}
TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ROWS = """
select p.id, p.name, p.description, c.name as category_name, p.price, p.created_at,
       coalesce(array_agg(t.name order by t.name collate "C") filter (where t.id is not null), '{}') as tags
  from products p
  join categories c on c.id = p.category_id
  left join product_tags pt on pt.product_id = p.id
  left join tags t on t.id = pt.tag_id
 group by p.id, c.name
 order by p.id
"""
ACCOUNT = "select id, password, is_staff from users where fold_case(username) = fold_case($1) and is_active"
UPDATE = """
update products set name = coalesce($2, name), price = coalesce($3::float8::numeric, price) where id = $1 returning id
"""
JSON = f"""
select coalesce(json_agg(json_build_object(
         'id', id, 'name', name, 'description', description, 'category_name', category_name, 'price', price,
         'created_at', to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'tags', tags) order by id),
       '[]')::text
  from ({ROWS}) rows
"""


@asynccontextmanager
async def lifespan(app):
    app.state.pool = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=2, max_size=8)
    app.state.redis = Redis.from_url(os.environ["REDIS_URL"])
    yield
    await app.state.pool.close()


app = FastAPI(lifespan=lifespan, openapi_url=None)


def claims(request: Request):
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    try:
        assert scheme == "Bearer"
        return jwt.decode(token, SECRET, algorithms=["HS256"])
    except (AssertionError, jwt.PyJWTError):
        raise HTTPException(401)


class Login(BaseModel):
    username: str
    password: str


class ProductUpdate(BaseModel):
    name: str | None = None
    price: float | None = None


def password_matches(password, stored):
    _, iterations, salt, hash = stored.split("$")
    derived = hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), int(iterations))
    return hmac.compare_digest(base64.b64encode(derived).decode(), hash)


@app.post("/api/login/")
async def login(login: Login):
    account = await app.state.pool.fetchrow(ACCOUNT, login.username)
    if not account or not await asyncio.to_thread(password_matches, login.password, account["password"]):
        raise HTTPException(401)
    claims = {"sub": str(account["id"]), "staff": account["is_staff"], "exp": int(time.time()) + 3600}
    return {"token": jwt.encode(claims, SECRET, algorithm="HS256")}


@app.get("/api/products/")
async def products(_: dict = Depends(claims)):
    body = await app.state.redis.get(LIST)
    if body is None:
        body = (await app.state.pool.fetchval(JSON)).encode()
        await app.state.redis.set(LIST, body, ex=LIST_SECONDS)
    return Response(body, media_type="application/json")


def workbook(rows):
    file = tempfile.NamedTemporaryFile(suffix=".xlsx", delete=False)
    file.close()
    with xlsxwriter.Workbook(file.name, WORKBOOK) as book:
        sheet, date = book.add_worksheet("Products"), book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        for column, title in enumerate(["ID", "Name", "Description", "Category", "Price", "Created at", "Tags"]):
            sheet.write_string(0, column, title)
        for number, row in enumerate(rows, 1):
            sheet.write_number(number, 0, row["id"])
            sheet.write_string(number, 1, row["name"])
            sheet.write_string(number, 2, row["description"])
            sheet.write_string(number, 3, row["category_name"])
            sheet.write_number(number, 4, row["price"])
            sheet.write_datetime(number, 5, row["created_at"], date)
            sheet.write_string(number, 6, ", ".join(row["tags"]))
    return file.name


@app.get("/api/products/export/")
async def export(_: dict = Depends(claims)):
    path = await asyncio.to_thread(workbook, await app.state.pool.fetch(ROWS))
    return FileResponse(path, media_type=TYPE, filename="products.xlsx", background=BackgroundTask(os.unlink, path))


@app.patch("/api/products/{id}/")
async def update_product(id: int, update: ProductUpdate, claims: dict = Depends(claims)):
    if not claims["staff"]:
        raise HTTPException(403)
    row = await app.state.pool.fetchrow(UPDATE, id, update.name, update.price)
    await app.state.redis.delete(LIST)
    if row is None:
        raise HTTPException(404)
    return {"id": id}
