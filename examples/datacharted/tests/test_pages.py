"""What people do with a browser."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from form_client import PASSWORD, Browser
from flask import Flask

from app import db
from app.models import User
from app.version import VERSION

VOID_ELEMENTS = {"input", "link", "meta"}


class StrictParser(HTMLParser):
    """Notes every element that is closed in the wrong place, every repeated id, and every field without a label."""

    def __init__(self) -> None:
        super().__init__()
        self.open_elements: list[str] = []
        self.faults: list[str] = []
        self.ids: list[str] = []
        self.labelled: set[str] = set()
        self.fields: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag not in VOID_ELEMENTS:
            self.open_elements.append(tag)
        if "id" in attributes:
            self.ids.append(attributes["id"] or "")
        if tag == "label":
            self.labelled.add(attributes["for"] or "")
        if tag in {"input", "textarea"} and attributes.get("type") != "hidden":
            self.fields.add(attributes["id"] or "")

    def handle_endtag(self, tag: str) -> None:
        if not self.open_elements or self.open_elements.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """<rect/> opens and closes itself."""


def faults_in(page: str) -> list[str]:
    """What is wrong with the markup of `page`."""
    parser = StrictParser()
    parser.feed(page)
    repeated = {name for name in parser.ids if parser.ids.count(name) > 1}
    return [*parser.faults, *parser.open_elements, *repeated, *(parser.fields - parser.labelled)]


def test_pages_are_well_formed(browser: Browser) -> None:
    """Every page closes what it opens, has each id once, and a label for every field; also with errors on it."""
    paths = ["/", "/auth/login", "/auth/register", "/nowhere"]
    texts = [browser.get(path).text for path in paths]
    browser.register()
    browser.send_form("/charts", title="Tea <&>", numbers="1 -2.5")
    texts += [browser.get(path).text for path in ("/", "/charts")]
    texts += [browser.send_form("/charts", title="Tea", numbers="one").text, browser.post("/charts").text]
    assert [faults_in(text) for text in texts] == [[]] * len(texts)
    assert all(text.startswith("<!doctype html>") and text.count("<h1>") == 1 for text in texts)


def test_register_and_log_in_again(browser: Browser) -> None:
    """Who registers is logged in at once, and after logging out the same name and password let them in again."""
    answer = browser.send_form("/auth/register", username="ann", password=PASSWORD)
    assert (answer.status_code, answer.location) == (303, "/charts")
    assert "Charts of ann" in browser.get("/charts").text
    assert browser.post("/auth/logout", data={"token": browser.token_on("/charts")}).location == "/"
    assert browser.get("/charts").location == "/auth/login"
    browser.send_form("/auth/login", username="ann", password=PASSWORD)
    assert browser.get("/charts").status_code == 200


@pytest.mark.parametrize(
    ("username", "password", "said"),
    [
        ("ann", "correct house", "do not fit together"),
        ("bob", PASSWORD, "do not fit together"),
        ("", PASSWORD, "1 to 80 characters"),
        ("ann", "short", "8 to 1000 characters"),
    ],
)
def test_wrong_login(browser: Browser, other_browser: Browser, username: str, password: str, said: str) -> None:
    """A wrong name or password logs nobody in, and the form says why and keeps the name."""
    other_browser.register("ann")
    answer = browser.send_form("/auth/login", username=username, password=password)
    assert answer.status_code == 400
    assert said in answer.text
    assert f'value="{username}"' in answer.text
    assert browser.get("/charts").location == "/auth/login"


def test_taken_username(browser: Browser, other_browser: Browser) -> None:
    """A username belongs to whoever registered it first; the second one is told and not logged in."""
    other_browser.register("ann")
    answer = browser.send_form("/auth/register", username=" ann ", password="another password")
    assert (answer.status_code, "is taken" in answer.text) == (400, True)
    assert browser.get("/charts").location == "/auth/login"


def test_password_is_hashed(app: Flask, browser: Browser) -> None:
    """The database has a salted hash of the password, never the password."""
    browser.register()
    with app.app_context():
        stored = db.session.scalars(db.select(User.password_hash)).one()
    assert stored.startswith("scrypt:")
    assert PASSWORD not in stored


def test_create_and_list_charts(browser: Browser) -> None:
    """A chart sent by form is on the page afterwards: title escaped, and a bar for each number."""
    browser.register()
    answer = browser.send_form("/charts", title="Tea & <b>", numbers="3, 1;4\n1.5")
    assert (answer.status_code, answer.location) == (303, "/charts")
    page = browser.get("/charts").text
    assert "<h2>Tea &amp; &lt;b&gt;</h2>" in page
    assert page.count("<rect") == 4
    assert 'aria-label="Bar chart of Tea &amp; &lt;b&gt;: 3, 1, 4, 1.5"' in page


@pytest.mark.parametrize(
    ("title", "numbers", "said"),
    [
        ("", "1", "1 to 120 characters"),
        ("x" * 121, "1", "1 to 120 characters"),
        ("Tea", "", "1 to 100 numbers"),
        ("Tea", "1 " * 101, "1 to 100 numbers"),
        ("Tea", "1 two", "“two” is not a number"),
        ("Tea", "nan", "plain one"),
        ("Tea", "1e16", "plain one"),
    ],
)
def test_bad_chart(browser: Browser, title: str, numbers: str, said: str) -> None:
    """A chart that cannot be drawn is not stored; the form says why and keeps what was typed."""
    browser.register()
    answer = browser.send_form("/charts", title=title, numbers=numbers)
    assert answer.status_code == 400
    assert said in answer.text
    assert f">{numbers}</textarea>" in answer.text
    assert "No charts here yet" in browser.get("/charts").text


def test_charts_are_private(browser: Browser, other_browser: Browser) -> None:
    """Users see their own charts only."""
    browser.register("ann")
    browser.send_form("/charts", title="Ann's tea", numbers="1")
    other_browser.register("bob")
    assert "Ann&#39;s tea" in browser.get("/charts").text
    assert "Ann&#39;s tea" not in other_browser.get("/charts").text


def test_older_charts(browser: Browser) -> None:
    """The page shows the newest 50 charts and leads to the older ones."""
    browser.register()
    for number in range(1, 52):
        browser.post("/api/charts", json={"title": f"Chart {number:02}", "numbers": [number]})
    newest = browser.get("/charts").text
    assert "Chart 51" in newest
    assert "Chart 01" not in newest
    assert 'href="/charts?before=2"' in newest
    oldest = browser.get("/charts?before=2").text
    assert "Chart 01" in oldest
    assert "Older charts" not in oldest


def test_forms_of_other_sites_are_refused(app: Flask, browser: Browser) -> None:
    """No form is accepted without the token of this very session: not without one, not with an empty or foreign one."""
    browser.register()
    paths = [rule.rule for rule in app.url_map.iter_rules() if "POST" in rule.methods and "/api/" not in rule.rule]
    assert set(paths) >= {"/auth/login", "/auth/register", "/auth/logout", "/charts"}
    for path in paths:
        for sent in ({}, {"token": ""}, {"token": "möglich"}, {"token": "x" * 22}):
            fields = {"title": "Foreign", "numbers": "1", "username": "eve", "password": PASSWORD, **sent}
            assert browser.post(path, data=fields).status_code == 400, (path, sent)
            browser.get("/auth/login")  # from now on the session has a token, which the fields do not have
    assert "No charts here yet" in browser.get("/charts").text


def test_session_cookie(app: Flask) -> None:
    """Scripts cannot read the session cookie, other sites cannot post with it, and over https it is marked Secure."""
    over_http = app.test_client().get("/auth/login").headers["Set-Cookie"]
    over_https = app.test_client().get("/auth/login", headers={"X-Forwarded-Proto": "https"}).headers["Set-Cookie"]
    assert "HttpOnly" in over_http
    assert "SameSite=Lax" in over_http
    assert "Secure" not in over_http
    assert "Secure" in over_https


def test_login_starts_a_new_session(browser: Browser) -> None:
    """Nothing of the session before a login stays: whoever knew its token cannot post with it afterwards."""
    before = browser.token_on("/auth/login")
    browser.register()
    assert browser.post("/charts", data={"token": before, "title": "Tea", "numbers": "1"}).status_code == 400


def test_session_of_a_user_who_is_gone(app: Flask, browser: Browser) -> None:
    """When the database does not know the session's user (any more), the browser is simply logged out."""
    browser.register()
    with app.app_context():
        db.session.execute(db.delete(User))
        db.session.commit()
    assert browser.get("/charts").location == "/auth/login"
    assert "Register" in browser.get("/").text
    assert browser.get("/api/charts").status_code == 401


def test_browsers_are_told_to_be_strict(browser: Browser) -> None:
    """Pages run nothing but the site's own files, in no frame of another site, and files are what they say they are."""
    headers = browser.get("/").headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert {"default-src 'self'", "frame-ancestors 'none'"} <= set(headers["Content-Security-Policy"].split("; "))


def test_every_answer_names_the_release(browser: Browser) -> None:
    """Pages, errors, static files and redirects carry the release in X-DataCharted-Version."""
    for path in ("/", "/up", "/charts", "/nowhere", "/api/nowhere", "/static/style.css"):
        with browser.get(path) as answer:
            assert answer.headers["X-DataCharted-Version"] == VERSION, path
    assert f"DataCharted {VERSION}" in browser.get("/").text
    assert f"style.css?release={VERSION}" in browser.get("/").text
