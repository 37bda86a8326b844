"""The client of OpenAPI Generator for Python."""

import json
from collections.abc import Callable
from typing import Any

import openapi_generator_shop as shop

from scenario import SHOP, Answer, run


class Client:
    def __init__(self) -> None:
        self.configuration = shop.Configuration(host=SHOP)
        api = shop.ApiClient(self.configuration)
        self.accounts, self.products = shop.AccountsApi(api), shop.ProductsApi(api)

    def answer(self, operation: Callable[..., Any], *arguments: Any, **options: Any) -> Answer:
        try:
            response = operation(*arguments, **options)
        except shop.ApiException as error:
            return Answer(error.status, error.headers, None, json.loads(error.body))
        return Answer(response.status_code, response.headers, response.data)

    def authorize(self, token: str) -> None:
        self.configuration.access_token = token

    def register(self, **body: str) -> Answer:
        return self.answer(self.accounts.post_register_with_http_info, shop.Registration(**body))

    def log_in(self, **body: str) -> Answer:
        return self.answer(self.accounts.post_login_with_http_info, shop.Credentials(**body))

    def list(self, **query: Any) -> Answer:
        return self.answer(self.products.get_products_with_http_info, **query)

    def get(self, product_id: int) -> Answer:
        return self.answer(self.products.get_one_products_with_http_info, product_id)

    def create(self, **body: Any) -> Answer:
        return self.answer(self.products.post_products_with_http_info, shop.ProductRequest(**body))

    def update(self, product_id: int, if_match: str, **body: Any) -> Answer:
        patch = shop.ProductPatch(**body)
        return self.answer(self.products.patch_one_products_with_http_info, product_id, if_match, patch)

    def remove(self, product_id: int, if_match: str) -> Answer:
        return self.answer(self.products.delete_one_products_with_http_info, product_id, if_match)

    def export_file(self) -> Answer:
        return self.answer(self.products.get_products_export_with_http_info)

    def import_file(self, file: bytes) -> Answer:
        return self.answer(self.products.post_products_import_with_http_info, file)


run("openapi-generator-python", Client())
