"""Who is logged in: the user's id in Flask's signed session cookie."""

from __future__ import annotations

from flask import Flask, g, request, session
from flask.sessions import SecureCookieSessionInterface

from .database import db
from .models import User


class SessionCookie(SecureCookieSessionInterface):
    """Flask's own cookie, marked Secure whenever the browser came over https."""

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002  (Flask's own signature)
        """Whether this request came over https."""
        return request.is_secure


def log_in(user: User) -> None:
    """Start a session of `user`; nothing of the session before it stays."""
    session.clear()
    session["user_id"] = user.id
    g.user = user


def log_out() -> None:
    """End the session, whoever's it is."""
    session.clear()
    g.pop("user", None)


def current_user() -> User | None:
    """The user of this request, read from the database once."""
    if "user" not in g:
        g.user = db.session.get(User, session["user_id"]) if "user_id" in session else None
        if g.user is None:
            session.pop("user_id", None)
    return g.user
