"""The frameworks that are known by name: what their apps are made with, and which server runs them."""

from __future__ import annotations

import msgspec

from bulletproof.domain.config import Server


class Framework(msgspec.Struct, frozen=True, kw_only=True):
    """What an app is written with."""

    name: str
    """As its makers write it."""
    package: str
    """Its import name; packages that extend it begin so."""
    makers: frozenset[str]
    """The classes and functions, by their dotted names, that make an app when they are called."""
    server: Server


FLASK = Framework(
    name="Flask",
    package="flask",
    makers=frozenset({"flask.Flask", "flask.app.Flask", "apiflask.APIFlask", "flask_openapi3.OpenAPI"}),
    server=Server.GUNICORN,
)
DJANGO = Framework(
    name="Django",
    package="django",
    makers=frozenset({"django.core.wsgi.get_wsgi_application"}),
    server=Server.GUNICORN,
)
DJANGO_ASGI = Framework(
    name="Django",
    package="django",
    makers=frozenset({"django.core.asgi.get_asgi_application"}),
    server=Server.UVICORN,
)
FASTAPI = Framework(
    name="FastAPI",
    package="fastapi",
    makers=frozenset({"fastapi.FastAPI", "fastapi.applications.FastAPI"}),
    server=Server.UVICORN,
)
ASGI = Framework(name="ASGI", package="", makers=frozenset(), server=Server.UVICORN)
"""An app that is a plain function of `scope`, `receive` and `send`."""
WSGI = Framework(name="WSGI", package="", makers=frozenset(), server=Server.GUNICORN)
"""An app that is a plain function of `environ` and `start_response`."""

FRAMEWORKS = (
    FLASK,
    DJANGO,
    DJANGO_ASGI,
    FASTAPI,
    Framework(
        name="Quart",
        package="quart",
        makers=frozenset({"quart.Quart", "quart.app.Quart"}),
        server=Server.UVICORN,
    ),
    Framework(
        name="Litestar",
        package="litestar",
        makers=frozenset({"litestar.Litestar", "litestar.app.Litestar"}),
        server=Server.UVICORN,
    ),
    Framework(
        name="Starlette",
        package="starlette",
        makers=frozenset({"starlette.applications.Starlette"}),
        server=Server.UVICORN,
    ),
)
"""All that are made with something; one that others are built on stands after them."""


def made_with(name: str) -> Framework | None:
    """The framework whose app calling this makes, by the dotted name of a class or function from outside."""
    return next((one for one in FRAMEWORKS if name in one.makers), None)


def of_packages(packages: set[str], entry: str = "") -> Framework | None:
    """The framework of a source that imports these packages; a Django's `entry` in an asgi module is ASGI's."""
    found = next((one for one in FRAMEWORKS if one.package in packages), None)
    is_asgi = entry.partition(":")[0].rpartition(".")[2] == "asgi"
    return DJANGO_ASGI if found is DJANGO and is_asgi else found
