"""What programs do over JSON."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from form_client import PASSWORD, Browser
from flask import Flask
from sqlalchemy import create_engine, text

from app import db
from app.version import VERSION

ANN = {"username": "ann", "password": PASSWORD}
TEA = {"title": "Tea", "numbers": [1, 2.5, -3]}


def test_up(browser: Browser) -> None:
    """/up answers 200 with the release, without a session."""
    answer = browser.get("/up")
    assert (answer.status_code, answer.json) == (200, {"status": "ok", "version": VERSION})


def test_up_needs_the_database(app: Flask, browser: Browser, settings: dict[str, str]) -> None:
    """/up answers 500 when the database cannot be opened."""
    with app.app_context():
        db.engine.dispose()
    database = Path(settings["DATABASE_URL"].removeprefix("sqlite:///"))
    database.unlink()
    database.mkdir()
    assert browser.get("/up").status_code == 500


def test_register_logs_in(browser: Browser) -> None:
    """Registering answers 201 and opens a session."""
    answer = browser.post("/api/register", json=ANN)
    assert (answer.status_code, answer.json) == (201, {"username": "ann", "version": VERSION})
    assert browser.get("/api/charts").status_code == 200


def test_username_is_taken(browser: Browser) -> None:
    """Registering a name again answers 409, and the first password stays the valid one."""
    browser.post("/api/register", json=ANN)
    assert browser.post("/api/register", json={**ANN, "password": "another one"}).status_code == 409
    assert browser.post("/api/login", json=ANN).status_code == 200


def test_login(browser: Browser, other_browser: Browser) -> None:
    """Logging in opens a session on another client; a wrong password answers 401 and opens none."""
    browser.post("/api/register", json=ANN)
    assert other_browser.post("/api/login", json={**ANN, "password": "wrong one"}).status_code == 401
    assert other_browser.get("/api/charts").status_code == 401
    assert other_browser.post("/api/login", json=ANN).json == {"username": "ann", "version": VERSION}
    assert other_browser.get("/api/charts").status_code == 200


def test_chart_is_committed_before_it_is_acknowledged(browser: Browser, settings: dict[str, str]) -> None:
    """A 201 means that another connection to the database sees the chart already."""
    browser.post("/api/register", json=ANN)
    answer = browser.post("/api/charts", json=TEA)
    assert (answer.status_code, answer.json) == (201, {"id": 1, "title": "Tea", "version": VERSION})
    engine = create_engine(settings["DATABASE_URL"])
    with engine.connect() as connection:
        assert connection.execute(text("SELECT id, title, numbers FROM chart")).all() == [(1, "Tea", "[1, 2.5, -3]")]
    engine.dispose()


def test_list_charts(browser: Browser, other_browser: Browser) -> None:
    """The list has the user's own 50 newest charts, newest first, and `before` leads to the older ones."""
    other_browser.register("bob")
    other_browser.post("/api/charts", json={**TEA, "title": "Bob's"})
    browser.register("ann")
    for number in range(51):
        browser.post("/api/charts", json={"title": f"Chart {number}", "numbers": [number]})
    first = browser.get("/api/charts").json
    assert first["version"] == VERSION
    assert first["charts"][0] == {"id": 52, "title": "Chart 50", "numbers": [50]}
    assert [chart["id"] for chart in first["charts"]] == list(range(52, 2, -1))
    assert [chart["id"] for chart in browser.get("/api/charts?before=3").json["charts"]] == [2]
    assert browser.get(f"/api/charts?before=-{10**30}").json["charts"] == []
    assert len(browser.get(f"/api/charts?before={10**30}").json["charts"]) == 50


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_charts_need_a_session(browser: Browser, method: str) -> None:
    """Without a session charts are neither listed nor created: 401, in JSON."""
    answer = browser.open("/api/charts", method=method, json=TEA)
    assert answer.status_code == 401
    assert answer.json == {"error": "Log in first: POST /api/login.", "version": VERSION}


@pytest.mark.parametrize(
    "sent",
    [
        [],
        {},
        {**TEA, "title": ""},
        {**TEA, "title": 7},
        {**TEA, "title": "half a pair: \ud800"},
        {**TEA, "title": "x" * 121},
        {**TEA, "numbers": []},
        {**TEA, "numbers": "1, 2"},
        {**TEA, "numbers": [True]},
        {**TEA, "numbers": ["1"]},
        {**TEA, "numbers": [float("nan")]},
        {**TEA, "numbers": [10**400]},
        {**TEA, "numbers": [0] * 101},
    ],
)
def test_bad_chart(browser: Browser, sent: object) -> None:
    """What is no chart answers 400 with a sentence, and is not stored."""
    browser.register()
    answer = browser.post("/api/charts", json=sent)
    assert answer.status_code == 400
    assert answer.json["error"].endswith(".")
    assert browser.get("/api/charts").json["charts"] == []


@pytest.mark.parametrize("path", ["/api/register", "/api/login"])
@pytest.mark.parametrize(
    "sent", [{}, {**ANN, "username": " "}, {**ANN, "password": "short"}, {**ANN, "password": None}]
)
def test_bad_account(browser: Browser, path: str, sent: object) -> None:
    """An account without a name or a password of 8 characters answers 400."""
    assert browser.post(path, json=sent).status_code == 400


@pytest.mark.parametrize("sent", ["", "{", "null", "9" * 5000, b"\xff"])
def test_broken_json(browser: Browser, sent: str | bytes) -> None:
    """What is no JSON object answers 400, in JSON."""
    answer = browser.post("/api/login", data=sent, content_type="application/json")
    assert (answer.status_code, answer.json["version"]) == (400, VERSION)


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", None]
)
def test_forms_of_other_sites_are_refused(app: Flask, browser: Browser, content_type: str | None) -> None:
    """No POST under /api is accepted in a content type that a plain form of another site could send: 415."""
    browser.register()
    for rule in app.url_map.iter_rules():
        if "POST" in rule.methods and rule.rule.startswith("/api/"):
            answer = browser.post(rule.rule, data='{"title": "Foreign", "numbers": [1]}', content_type=content_type)
            assert answer.status_code == 415, rule.rule
            assert answer.json["error"] == "Send JSON, with Content-Type: application/json."
    assert browser.get("/api/charts").json["charts"] == []


def test_longest_body(browser: Browser) -> None:
    """More than 1 MiB answers 413, in JSON."""
    answer = browser.post("/api/login", json={**ANN, "padding": "x" * 1024 * 1024})
    assert (answer.status_code, answer.json["version"]) == (413, VERSION)


def test_whoami_tells_what_the_proxy_said(browser: Browser) -> None:
    """The app takes address, scheme and host from the one proxy in front, never from what a client wrote before it."""
    headers = {
        "X-Forwarded-For": "198.51.100.66, 203.0.113.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "charts.example",
    }
    seen = browser.get("/api/whoami", headers=headers).json
    assert seen == {"address": "203.0.113.9", "scheme": "https", "host": "charts.example", "version": VERSION}


def test_slow(browser: Browser) -> None:
    """/api/slow answers after the seconds that were asked for, not before."""
    started = time.monotonic()
    answer = browser.get("/api/slow?seconds=0.2")
    assert time.monotonic() - started >= 0.2
    assert answer.json == {"seconds": 0.2, "version": VERSION}


@pytest.mark.parametrize("seconds", ["-1", "11", "nan", "soon", ""])
def test_slow_has_a_limit(browser: Browser, seconds: str) -> None:
    """More than ten seconds, or no number, answers 400 at once."""
    assert browser.get(f"/api/slow?seconds={seconds}").status_code == 400
