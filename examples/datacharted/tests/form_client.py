"""A test client that uses the pages as a person's browser does."""

from __future__ import annotations

import re
from pathlib import Path

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

PROJECT = Path(__file__).resolve().parent.parent
PASSWORD = "correct horse"


class Browser(FlaskClient):
    """Loads a page before it posts the page's form, and sends the hidden token along."""

    def send_form(self, path: str, **fields: str) -> TestResponse:
        """Load `path` and post `fields` to it."""
        return self.post(path, data={"token": self.token_on(path), **fields})

    def token_on(self, path: str) -> str:
        """The hidden token in the forms of the page at `path`."""
        token = re.search(r'name="token" value="([^"]+)"', self.get(path).text)
        assert token, f"{path} has no form"
        return token.group(1)

    def register(self, username: str = "ann") -> None:
        """Make an account over the API; the browser is logged in afterwards."""
        answer = self.post("/api/register", json={"username": username, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
