"""Forms that only our own pages can post: each carries a token that only this browser's session knows."""

from __future__ import annotations

import secrets

from flask import abort, request, session


def form_token() -> str:
    """The token of this session, for a hidden field named `token`."""
    if "token" not in session:
        session["token"] = secrets.token_urlsafe(16)
    return session["token"]


def refuse_foreign_forms() -> None:
    """Answer 400 to a POST without the session's token; for `before_request` of every blueprint with forms."""
    if request.method != "POST":
        return
    known, sent = session.get("token", ""), request.form.get("token", "")
    if not known or not secrets.compare_digest(known.encode(), sent.encode()):
        abort(400, "This form has expired. Go back, load the page again, and send it once more.")
