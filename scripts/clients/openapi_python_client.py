"""The client of openapi-python-client."""

from io import BytesIO
from types import ModuleType
from typing import Any

import openapi_python_client_shop as shop
from openapi_python_client_shop import models
from openapi_python_client_shop.api.accounts import post_login, post_register
from openapi_python_client_shop.api.products import (
    delete_one_products,
    get_one_products,
    get_products,
    get_products_export,
    patch_one_products,
    post_products,
    post_products_import,
)
from openapi_python_client_shop.types import File

from scenario import SHOP, Answer, run


class Client:
    def __init__(self) -> None:
        self.client: Any = shop.Client(base_url=SHOP)

    def answer(self, operation: ModuleType, *arguments: Any, **options: Any) -> Answer:
        response = operation.sync_detailed(*arguments, client=self.client, **options)
        errors = response.parsed.to_dict() if response.status_code >= 400 else ()
        return Answer(response.status_code, response.headers, response.parsed, errors)

    def authorize(self, token: str) -> None:
        self.client = shop.AuthenticatedClient(base_url=SHOP, token=token)

    def register(self, **body: str) -> Answer:
        return self.answer(post_register, body=models.Registration(**body))

    def log_in(self, **body: str) -> Answer:
        return self.answer(post_login, body=models.Credentials(**body))

    def list(self, **query: Any) -> Answer:
        if "ordering" in query:
            query["ordering"] = models.GetProductsOrdering(query["ordering"])
        return self.answer(get_products, **query)

    def get(self, product_id: int) -> Answer:
        return self.answer(get_one_products, product_id)

    def create(self, **body: Any) -> Answer:
        return self.answer(post_products, body=models.ProductRequest(**body))

    def update(self, product_id: int, if_match: str, **body: Any) -> Answer:
        return self.answer(patch_one_products, product_id, body=models.ProductPatch(**body), if_match=if_match)

    def remove(self, product_id: int, if_match: str) -> Answer:
        return self.answer(delete_one_products, product_id, if_match=if_match)

    def export_file(self) -> Answer:
        answer = self.answer(get_products_export)
        answer.data = answer.data.payload.read()
        return answer

    def import_file(self, file: bytes) -> Answer:
        return self.answer(post_products_import, body=File(payload=BytesIO(file)))


run("openapi-python-client", Client())
