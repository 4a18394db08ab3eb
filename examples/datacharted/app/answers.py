"""What every answer has in common: its headers, and errors as a page for people or as JSON for programs."""

from __future__ import annotations

from flask import Flask, Response, jsonify, make_response, render_template, request
from werkzeug.exceptions import HTTPException

from .input import BadInput
from .sessions import SessionCookie
from .version import VERSION


def finish_answers(app: Flask) -> None:
    """Give `app` the version header, the security headers, the session cookie and the error answers."""
    app.session_interface = SessionCookie()
    app.after_request(_add_headers)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(BadInput, _bad_input)


def _add_headers(response: Response) -> Response:
    response.headers["X-DataCharted-Version"] = VERSION
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'"
    return response


def _http_error(error: HTTPException) -> Response:
    return _error(error.code or 500, error.description or error.name)


def _bad_input(error: BadInput) -> Response:
    return _error(400, str(error))


def _error(status: int, sentence: str) -> Response:
    if request.path.startswith("/api/"):
        return make_response(jsonify(error=sentence, version=VERSION), status)
    return make_response(render_template("error.html", status=status, sentence=sentence), status)
