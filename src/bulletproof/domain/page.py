"""A page as a visitor got it, and the forms in it."""

from __future__ import annotations

from html.parser import HTMLParser

import msgspec

_HIDDEN = "hidden"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """An answer; `status` is 0 when there was none, and `words` says why."""

    status: int
    seconds: float = 0.0
    text: str = ""
    location: str = ""
    """Where it leads to, if it redirects."""
    leads_to: str = ""
    """Of that, the path alone."""
    words: str = ""
    certificate_days: float | None = None
    """For how many days more the server's certificate is good; None without one."""


class Form(msgspec.Struct, kw_only=True):
    """A form of a page."""

    action: str
    """Where it is sent; empty means to the page's own address."""
    hidden: dict[str, str] = msgspec.field(default_factory=dict)
    names: set[str] = msgspec.field(default_factory=set)
    """Of all its fields."""


def forms_in(text: str) -> tuple[Form, ...]:
    """The forms of a page of HTML, in order; what stands in no form is left out."""
    parser = _Forms()
    parser.feed(text)
    parser.close()
    return tuple(parser.found)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []
        self._is_inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(Form(action=told.get("action", "")))
            self._is_inside = True
        elif self._is_inside and tag in {"input", "select", "textarea", "button"} and told.get("name"):
            self.found[-1].names.add(told["name"])
            if tag == "input" and told.get("type", "").lower() == _HIDDEN:
                self.found[-1].hidden[told["name"]] = told.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._is_inside = False
