"""A Django project as `django-admin startproject` lays it, that keeps books, with the migrations that a test wants."""

from __future__ import annotations

_TOLD = 'dj_database_url.config(default=f"sqlite:///{BASE_DIR}/db.sqlite3")'
WRITTEN = '{"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}'
"""What `django-admin startproject` writes."""

_MANAGE = """\
import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""
_SERVER = """\
import os

from django.core.{0} import get_{0}_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

application = get_{0}_application()
"""
_SETTINGS = """\
import os
from pathlib import Path

import dj_database_url

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = os.environ.get("SECRET_KEY", "only-for-tests")
DEBUG = False
ALLOWED_HOSTS = {hosts}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "books"{apps}]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
DATABASES = {{"default": {database}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""
_URLS = """\
from django.urls import path

from books import views

urlpatterns = [
    path("up", views.up),
    path("api/charts", views.books),  # as the traffic of all tests asks, which logs in first
    path("api/register", views.register),
]
"""
_VIEWS = """\
import json

from django.http import JsonResponse

from books.models import Book


def up(request):
    Book.objects.count()
    return JsonResponse({"status": "ok"})


def register(request):
    answer = JsonResponse({}, status=201)
    answer.set_cookie("user", "1")
    return answer


def books(request):
    if request.method == "POST":
        made = Book.objects.create(title=json.loads(request.body)["title"])
        return JsonResponse({"title": made.title}, status=201)
    return JsonResponse({"charts": list(Book.objects.values_list("title", flat=True)[:100])})
"""
_MODEL = """\
from django.db import models


class Book(models.Model):
    title = models.CharField(max_length=200)
"""
_MIGRATION = """\
from django.db import migrations, models


def nothing(apps, schema_editor):
    pass


class Migration(migrations.Migration):
    atomic = {atomic}
    dependencies = {needs}
    operations = [
        {operations}
    ]
"""
FIRST = """migrations.CreateModel("Book", fields=[
            ("id", models.BigAutoField(primary_key=True, serialize=False)),
            ("title", models.CharField(max_length=200)),
        ]),"""
PAGES = 'migrations.AddField("book", "pages", models.IntegerField(default=0)),'
NOTE = 'migrations.AddField("book", "note", models.TextField(null=True)),'


def migration(*operations: str, after: str = "", atomic: bool = True) -> str:
    """Write a migration of the app `books`."""
    needs = f"[('books', '{after}')]" if after else "[]"
    return _MIGRATION.format(needs=needs, atomic=atomic, operations="\n        ".join(operations))


def project(
    *later: str,
    fields: tuple[str, ...] = (),
    database: str = _TOLD,
    hosts: str = '["127.0.0.1"]',
    apps: str = "",
    servers: tuple[str, ...] = ("wsgi", "asgi"),
    atomic: bool = True,
) -> dict[str, str]:
    """Write the project: `later` are the operations of its second migration, `fields` what its model has besides."""
    second = {"books/migrations/0002_more.py": migration(*later, after="0001_initial", atomic=atomic)} if later else {}
    return {
        "manage.py": _MANAGE,
        "requirements.txt": "django~=5.2.0\ndj-database-url\n",
        "shop/__init__.py": "",
        **{f"shop/{server}.py": _SERVER.format(server) for server in servers},
        "shop/settings.py": _SETTINGS.format(hosts=hosts, apps=apps, database=database),
        "shop/urls.py": _URLS,
        "books/__init__.py": "",
        "books/models.py": _MODEL + "".join(f"    {field}\n" for field in fields),
        "books/views.py": _VIEWS,
        "books/migrations/__init__.py": "",
        "books/migrations/0001_initial.py": migration(FIRST),
        **second,
    }
