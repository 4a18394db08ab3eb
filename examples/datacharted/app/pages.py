"""The landing page, and the address that tells whether the app works."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, render_template
from sqlalchemy import text

from .database import db
from .drawing import bars
from .version import VERSION

SAMPLE_TITLE = "Cups of coffee, Monday to Sunday"
SAMPLE_NUMBERS = [3, 4, 2, 5, 6, 1, 1]

pages = Blueprint("pages", __name__)


@pages.get("/")
def landing() -> str:
    """What DataCharted is, with a sample chart."""
    return render_template("landing.html", title=SAMPLE_TITLE, numbers=SAMPLE_NUMBERS)


@pages.get("/up")
def up() -> Response:
    """200 when this worker answers and reaches its database, else 500."""
    db.session.execute(text("SELECT 1"))
    return jsonify(status="ok", version=VERSION)


@pages.app_template_global("bars")
def bars_in_templates(numbers: list[int | float]) -> object:
    """`drawing.bars` under its own name in every template."""
    return bars(numbers)
