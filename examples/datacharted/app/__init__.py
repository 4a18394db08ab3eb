"""DataCharted: people register, store numbers, and see them as bar charts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from flask import Flask
from flask_migrate import Migrate
from werkzeug.middleware.proxy_fix import ProxyFix

from . import accounts, answers, api, charts, forms, pages
from .database import db, make_durable
from .version import VERSION

__all__ = ["create_app", "db"]

PROJECT = Path(__file__).resolve().parent.parent
LONGEST_BODY_BYTES = 1024 * 1024


def create_app(settings: Mapping[str, str] = os.environ) -> Flask:
    """The app, set up from `settings` (the environment). It never creates or changes a table: `flask db upgrade` does.

    SECRET_KEY is required. DATABASE_URL defaults to the file app_dev.db beside run.py.
    """
    # Flask-SQLAlchemy looks for a relative SQLite path in the instance folder: here the folder of run.py itself.
    app = Flask(__name__, instance_path=str(PROJECT))
    app.config.update(
        SECRET_KEY=_secret_key(settings),
        SQLALCHEMY_DATABASE_URI=settings.get("DATABASE_URL") or "sqlite:///app_dev.db",
        SESSION_COOKIE_SAMESITE="Lax",
        MAX_CONTENT_LENGTH=LONGEST_BODY_BYTES,
    )
    app.json.sort_keys = False
    db.init_app(app)
    Migrate(app, db)
    with app.app_context():
        make_durable(db.engine)
    _add_pages(app)
    # Exactly one proxy stands in front, on a unix socket: it tells the client's address, scheme and host.
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)
    return app


def _secret_key(settings: Mapping[str, str]) -> str:
    secret_key = settings.get("SECRET_KEY")
    if not secret_key:
        raise RuntimeError(
            "SECRET_KEY is not set. It signs the session cookies. Make one and put it in the environment: "
            "export SECRET_KEY=$(python3 -c 'import secrets; print(secrets.token_hex(32))')"
        )
    return secret_key


def _add_pages(app: Flask) -> None:
    for blueprint in (pages.pages, accounts.accounts, charts.charts, api.api):
        app.register_blueprint(blueprint)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.globals.update(version=VERSION, form_token=forms.form_token)
    answers.finish_answers(app)
