"""Maintenance: what the public reads while the app is closed to it, as files for the proxy."""

from __future__ import annotations

import html
import json
import re

import msgspec

RETRY_SECONDS = 300
"""When a program is told to come again."""
ALLOWED = "allowed"
"""The folder in which there is a file for each address that gets the app all the same."""
_TITLE = "Closed for maintenance"
_WORDS = "We are working on it. Please come back in a few minutes."
_MESSAGE = re.compile(r"\{\{\s*message\s*\}\}")


class Maintenance(msgspec.Struct, frozen=True, kw_only=True):
    """That the app is closed to the public, and for whom it is not."""

    message: str = ""
    """What people read besides that; the usual words when empty."""
    allowed: tuple[str, ...] = ()
    """Addresses that get the app."""
    since: str = ""
    """When it began, in UTC."""
    page: str = ""
    """A page of the person's own instead of ours."""

    @property
    def words(self) -> str:
        """What people read."""
        return self.message or _WORDS


def page(title: str, words: str) -> str:
    """A page that needs nothing from anywhere."""
    return _PAGE.replace("TITLE", html.escape(title)).replace("WORDS", html.escape(words))


def answers(maintenance: Maintenance) -> dict[str, str]:
    """The content of each file of ANSWERS."""
    words = maintenance.words
    own = _MESSAGE.sub(lambda _: html.escape(words), maintenance.page)
    return {
        "page.html": own or page(_TITLE, words),
        "answer.json": json.dumps({"error": _TITLE, "message": words}) + "\n",
        "words.txt": f"{_TITLE}. {words}\n",
    }


ANSWERS = ("page.html", "answer.json", "words.txt")
"""For a browser, for a program that asks for JSON, and for all others."""

_PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>TITLE</title>'
    '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
    '</head><body style="font:1.125rem/1.6 system-ui,sans-serif;max-width:34rem;margin:18vh auto;padding:0 1.5rem">'
    '<h1 style="font-size:1.75rem;line-height:1.25;margin:0 0 .5rem">TITLE</h1><p style="margin:0">WORDS</p>'
    "</body></html>"
)
"""Its styles stand in attributes, because Caddy takes braces for placeholders."""
