"""Pages to register, log in and log out."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from .forms import refuse_foreign_forms
from .input import BadInput
from .models import User, UsernameTaken
from .sessions import log_in, log_out

accounts = Blueprint("accounts", __name__, url_prefix="/auth")
accounts.before_request(refuse_foreign_forms)


@accounts.get("/register")
def register_form() -> str:
    """An empty form for a new account."""
    return render_template("register.html")


@accounts.post("/register")
def register() -> ResponseReturnValue:
    """Make the account and log in, or show the form again with what was wrong."""
    try:
        log_in(User.register(request.form.get("username"), request.form.get("password")))
    except BadInput as error:
        return _again("register.html", str(error))
    except UsernameTaken:
        return _again("register.html", "This username is taken. Choose another one.")
    return redirect(url_for("charts.list_charts"), 303)


@accounts.get("/login")
def login_form() -> str:
    """An empty form for username and password."""
    return render_template("login.html")


@accounts.post("/login")
def login() -> ResponseReturnValue:
    """Log in, or show the form again."""
    try:
        user = User.with_password(request.form.get("username"), request.form.get("password"))
    except BadInput as error:
        return _again("login.html", str(error))
    if user is None:
        return _again("login.html", "Username and password do not fit together.")
    log_in(user)
    return redirect(url_for("charts.list_charts"), 303)


@accounts.post("/logout")
def logout() -> ResponseReturnValue:
    """End the session."""
    log_out()
    return redirect(url_for("pages.landing"), 303)


def _again(template: str, problem: str) -> ResponseReturnValue:
    return render_template(template, problem=problem, username=request.form.get("username", "")), 400
