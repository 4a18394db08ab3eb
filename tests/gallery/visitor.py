"""What the tests of published apps ask of them, as a browser or a client of theirs would, and what they read."""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

import workshop
from bulletproof.domain.report import Report
from live_app import Done, LiveApp


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody with cookies, who is logged in for good once he is."""

    app: LiveApp
    cookies: http.cookiejar.CookieJar = field(default_factory=http.cookiejar.CookieJar)

    def ask(self, path: str, data: bytes | None = None, **headers: str) -> tuple[int, str]:
        """One request, redirections followed: the status and the body."""
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.app.address + path, data=data, headers=named)  # noqa: S310  ours
        try:
            with opener.open(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def must(self, path: str) -> str:
        """What is answered there, with success."""
        status, body = self.ask(path)
        assert status == http.HTTPStatus.OK, f"{path}: {status}\n{body[-2000:]}"
        return body

    def post(self, path: str, values: Mapping[str, object], **headers: str) -> object:
        """Send JSON, and give back the JSON that is answered."""
        status, body = self.ask(path, json.dumps(values).encode(), Content_Type="application/json", **headers)
        assert status in {http.HTTPStatus.OK, http.HTTPStatus.CREATED}, f"{path}: {status}\n{body[-2000:]}"
        return json.loads(body)

    def submit(self, path: str, **values: str) -> str:
        """Open a form of Django's, fill it in and send it; gives back the page that follows."""
        self.must(path)
        token = next(one.value for one in self.cookies if one.name == "csrftoken")
        form = urllib.parse.urlencode({**values, "csrfmiddlewaretoken": token or ""}).encode()
        status, body = self.ask(path, form, Referer=self.app.address + path)
        assert status == http.HTTPStatus.OK, f"{path}: {status}\n{body[-2000:]}"
        return body


def upgrade(app: LiveApp, requirements: str) -> Done:
    """What a person does for a newer version: write it down, commit, deploy."""
    workshop.commit(app.folder, {"requirements.txt": requirements}, "Upgrade")
    return app.deploy()


def report(app: LiveApp) -> Report:
    """What the rehearsal of the live deployment found."""
    number = int(str(app.status()["deployment"]))
    return msgspec.json.decode(app.layout.report(number).read_bytes(), type=Report)


def rows(app: LiveApp, statement: str) -> list[tuple[object, ...]]:
    """What the live database answers."""
    with contextlib.closing(sqlite3.connect(f"file:{app.database}?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


def version_of(app: LiveApp, package: str) -> str:
    """The version of a package in the release that serves."""
    script = f"import importlib.metadata as m; print(m.version('{package}'))"
    return app.run("run", "--", "python", "-c", script, status=0).out.strip()
