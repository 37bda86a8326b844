"""The routes under comparison."""

from django.urls import path

from .views import Export, Login, ProductDetail, ProductList

urlpatterns = [
    path("api/login/", Login.as_view()),
    path("api/products/", ProductList.as_view()),
    path("api/products/export/", Export.as_view()),
    path("api/products/<int:id>/", ProductDetail.as_view()),
]
