"""The page on which users create charts and see their own."""

from __future__ import annotations

from flask import Blueprint, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from .forms import refuse_foreign_forms
from .input import BadInput, numbers_in
from .models import CHARTS_ON_A_PAGE, LARGEST_ID, Chart
from .sessions import current_user

charts = Blueprint("charts", __name__, url_prefix="/charts")
charts.before_request(refuse_foreign_forms)


@charts.before_request
def require_login() -> ResponseReturnValue | None:
    """Send whoever is not logged in to the login page."""
    return redirect(url_for("accounts.login_form"), 303) if current_user() is None else None


@charts.get("")
def list_charts() -> str:
    """A form for a new chart, and the user's charts, newest first."""
    return _page()


@charts.post("")
def create_chart() -> ResponseReturnValue:
    """Store a new chart, or show the form again with what was wrong."""
    try:
        Chart.create(g.user, request.form.get("title"), numbers_in(request.form.get("numbers", "")))
    except BadInput as error:
        return _page(problem=str(error)), 400
    return redirect(url_for("charts.list_charts"), 303)


def asked_before() -> int:
    """The id in `?before=`, below which the charts of this page are; without one, above every id."""
    return max(0, min(request.args.get("before", LARGEST_ID, type=int), LARGEST_ID))


def _page(problem: str = "") -> str:
    shown = Chart.newest_of(g.user, before=asked_before())
    older_than = shown[-1].id if len(shown) == CHARTS_ON_A_PAGE else None
    return render_template(
        "charts.html", charts=shown, older_than=older_than, problem=problem, username=g.user.username
    )
