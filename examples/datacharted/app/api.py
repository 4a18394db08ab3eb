"""The JSON API for programs; it logs in with the same session cookie as the pages."""

from __future__ import annotations

import time

from flask import Blueprint, Response, abort, jsonify, request
from flask.typing import ResponseReturnValue

from .charts import asked_before
from .input import BadInput
from .models import Chart, User, UsernameTaken
from .sessions import current_user, log_in
from .version import VERSION

LONGEST_REPORT_SECONDS = 10

api = Blueprint("api", __name__, url_prefix="/api")


@api.before_request
def refuse_foreign_forms() -> None:
    """Answer 415 to a POST that is not JSON: a page of another site cannot send JSON here unless we let it."""
    if request.method == "POST" and request.mimetype != "application/json":
        abort(415, "Send JSON, with Content-Type: application/json.")


@api.post("/register")
def register() -> ResponseReturnValue:
    """{"username", "password"} -> 201, logged in; 409 when the username is taken."""
    sent = _sent_object()
    try:
        user = User.register(sent.get("username"), sent.get("password"))
    except UsernameTaken:
        abort(409, "This username is taken.")
    log_in(user)
    return jsonify(username=user.username, version=VERSION), 201


@api.post("/login")
def login() -> Response:
    """{"username", "password"} -> 200, logged in; 401 when they do not fit together."""
    sent = _sent_object()
    user = User.with_password(sent.get("username"), sent.get("password"))
    if user is None:
        abort(401, "Username and password do not fit together.")
    log_in(user)
    return jsonify(username=user.username, version=VERSION)


@api.post("/charts")
def create_chart() -> ResponseReturnValue:
    """{"title", "numbers"} -> 201 and the new id, once the database has committed it."""
    owner, sent = _logged_in_user(), _sent_object()
    chart = Chart.create(owner, sent.get("title"), sent.get("numbers"))
    return jsonify(id=chart.id, title=chart.title, version=VERSION), 201


@api.get("/charts")
def list_charts() -> Response:
    """The user's newest charts, newest first; with ?before=ID those made before that one."""
    shown = Chart.newest_of(_logged_in_user(), before=asked_before())
    listed = [{"id": chart.id, "title": chart.title, "numbers": chart.numbers} for chart in shown]
    return jsonify(charts=listed, version=VERSION)


@api.get("/whoami")
def whoami() -> Response:
    """The client as the app sees it through the proxy."""
    return jsonify(address=request.remote_addr, scheme=request.scheme, host=request.host, version=VERSION)


@api.get("/slow")
def slow() -> Response:
    """Answer after ?seconds= of them (default 1, at most LONGEST_REPORT_SECONDS); stands for a long report."""
    seconds = _asked_seconds()
    time.sleep(seconds)
    return jsonify(seconds=seconds, version=VERSION)


def _logged_in_user() -> User:
    return current_user() or abort(401, "Log in first: POST /api/login.")


def _sent_object() -> dict[str, object]:
    sent = request.get_json()
    if not isinstance(sent, dict):
        raise BadInput("Send one JSON object.")
    return sent


def _asked_seconds() -> float:
    try:
        seconds = float(request.args.get("seconds", "1"))
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= LONGEST_REPORT_SECONDS:
        raise BadInput(f"seconds must be a number from 0 to {LONGEST_REPORT_SECONDS}.")
    return seconds
