"""A Django project as `django-admin startproject` lays it, into which a published app was installed by its manual."""

from __future__ import annotations

_MANAGE = """\
import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_.settings")
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""
_WSGI = """\
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_.settings")

application = get_wsgi_application()
"""
_SETTINGS = """\
import os
from pathlib import Path

import dj_database_url

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = os.environ.get("SECRET_KEY", "only-for-tests")
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.sites",
    "django.contrib.humanize",
{apps}
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "site_.urls"
TEMPLATES = [
    {{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {{
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        }},
    }}
]
WSGI_APPLICATION = "site_.wsgi.application"
DATABASES = {{"default": dj_database_url.config(default=f"sqlite:///{{BASE_DIR}}/db.sqlite3")}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "static-files"
SITE_ID = 1
USE_TZ = True
{more}
"""
_URLS = """\
from django.contrib import admin
from django.http import HttpResponse
from django.urls import include, path

urlpatterns = [
    path("up", lambda request: HttpResponse("ok")),
    path("admin/", admin.site.urls),
    path("{path}", include("{urls}")),
]
"""

ADD_ADMIN = (
    "env DJANGO_SUPERUSER_PASSWORD=secret python manage.py createsuperuser --noinput --username ann --email a@b.org"
)
"""The command that makes the first user."""


def site(apps: str, path: str, urls: str, more: str = "") -> dict[str, str]:
    """The project's files, save for requirements.txt."""
    installed = "\n".join(f'    "{one}",' for one in apps.split())
    return {
        "manage.py": _MANAGE,
        "site_/__init__.py": "",
        "site_/wsgi.py": _WSGI,
        "site_/settings.py": _SETTINGS.format(apps=installed, more=more),
        "site_/urls.py": _URLS.format(path=path, urls=urls),
    }
