"""Login, list, update and export. The list takes two queries; Redis holds it rendered until the next write."""

import tempfile

import xlsxwriter
from django.core.cache import cache
from django.db import transaction
from django.db.models import Prefetch
from django.db.models.functions import Collate
from django.http import FileResponse, HttpResponse
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.permissions import IsAdminUser
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework_simplejwt.serializers import TokenObtainPairSerializer
from rest_framework_simplejwt.views import TokenObtainPairView

from .models import Product, Tag

LIST = "products"
LIST_SECONDS = 300
WORKBOOK = {
    "constant_memory": True,
    "strings_to_formulas": False,
    "strings_to_urls": False,
    "remove_timezone": True,
}
TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def products():
    tags = Prefetch("tags", queryset=Tag.objects.order_by(Collate("name", "C")))
    return Product.objects.select_related("category").prefetch_related(tags).order_by("id")


class ProductSerializer(serializers.ModelSerializer):
    category_name = serializers.CharField(source="category.name", read_only=True)
    price = serializers.FloatField(min_value=0)
    tags = serializers.SlugRelatedField("name", many=True, read_only=True)

    class Meta:
        model = Product
        fields = ["id", "name", "description", "category_name", "price", "created_at", "tags"]


class LoginSerializer(TokenObtainPairSerializer):
    def validate(self, attrs):
        return {"token": super().validate(attrs)["access"]}


class Login(TokenObtainPairView):
    serializer_class = LoginSerializer


class ProductList(APIView):
    def get(self, request):
        body = cache.get(LIST)
        if body is None:
            body = JSONRenderer().render(ProductSerializer(products(), many=True).data)
            cache.set(LIST, body, LIST_SECONDS)
        return HttpResponse(body, content_type="application/json")


class ProductDetail(APIView):
    permission_classes = [IsAdminUser]

    @transaction.atomic
    def patch(self, request, id):
        product = get_object_or_404(products(), id=id)
        serializer = ProductSerializer(product, data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        transaction.on_commit(lambda: cache.delete(LIST))
        return Response(serializer.data)


class Export(APIView):
    def get(self, request):
        file = tempfile.TemporaryFile()
        with xlsxwriter.Workbook(file, WORKBOOK) as book:
            sheet, date = book.add_worksheet("Products"), book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
            for column, title in enumerate(["ID", "Name", "Description", "Category", "Price", "Created at", "Tags"]):
                sheet.write_string(0, column, title)
            for row, product in enumerate(products().iterator(chunk_size=2000), 1):
                sheet.write_number(row, 0, product.id)
                sheet.write_string(row, 1, product.name)
                sheet.write_string(row, 2, product.description)
                sheet.write_string(row, 3, product.category.name)
                sheet.write_number(row, 4, product.price)
                sheet.write_datetime(row, 5, product.created_at, date)
                sheet.write_string(row, 6, ", ".join(tag.name for tag in product.tags.all()))
        file.seek(0)
        return FileResponse(file, as_attachment=True, filename="products.xlsx", content_type=TYPE)
