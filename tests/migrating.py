"""Apps with migrations or models, laid as releases of a host that has nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from bulletproof.adapters.migrators import Migrators
from bulletproof.domain.config import AppConfig
from bulletproof.domain.layout import Layout
from bulletproof.errors import StepFailed
from bulletproof.ports import Manifest, SchemaState

CONFIG = AppConfig(name="shop")

APP = """
import os
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_migrate import Migrate

print('{{"error": "the app prints what it likes"}}')
db = SQLAlchemy()
{models}

def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = {url}
    db.init_app(app)
    Migrate(app, db)
    with app.app_context():
        {at_boot}
    return app
"""

REVISION = '''"""{title}"""
import sqlalchemy as sa
from alembic import op

revision = "{name}"
down_revision = {parents!r}


def upgrade():
    {upgrade}


def downgrade():
    {downgrade}
'''

PLAIN_ENV = """
import os
from alembic import context
from sqlalchemy import create_engine

with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""


def app_source(*, models: str = "", url: str = 'os.environ["DATABASE_URL"]', at_boot: str = "pass") -> str:
    """Write a Flask app."""
    return APP.format(models=models, url=url, at_boot=at_boot)


def model(name: str, *columns: str) -> str:
    """Write a model of a table with these columns besides its id."""
    lines = [f"    {column} = db.Column(db.String(80))" for column in columns]
    return "\n".join([f"class {name.title()}(db.Model):", "    id = db.Column(db.Integer, primary_key=True)", *lines])


def models(steps: int) -> str:
    """Write the models of so many tables."""
    return "\n".join(f'{model(f"table{step}")}\n    __tablename__ = "table_{step}"' for step in range(steps))


def revision(name: str, title: str, *parents: str, upgrade: str = "pass", downgrade: str = "pass") -> str:
    """Write a migration as `flask db revision` does."""
    before = None if not parents else parents[0] if len(parents) == 1 else parents
    return REVISION.format(name=name, title=title, parents=before, upgrade=upgrade, downgrade=downgrade)


def line(steps: int) -> dict[str, str]:
    """Write so many migrations, each of which makes a table; their names do not tell their order."""
    names = ("c3", "a1", "b2")
    upgrade = 'op.create_table("table_{}", sa.Column("id", sa.Integer, primary_key=True))'
    return {
        names[step]: revision(
            names[step], f"step {step}", *names[max(0, step - 1) : step], upgrade=upgrade.format(step)
        )
        for step in range(steps)
    }


def prints(root: Path) -> dict[str, str]:
    """What is below a folder: each file's content, each symlink's target."""
    found = {}
    for path in root.rglob("*"):
        if path.is_symlink():
            found[str(path)] = f"-> {path.readlink()}"
        else:
            found[str(path)] = "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@dataclass(frozen=True)
class House:
    """A host's tree with releases that tests lay there."""

    layout: Layout
    venvs: Path
    skeleton: Path

    @property
    def file(self) -> Path:
        """The live database."""
        return self.layout.data / "app.db"

    @property
    def migrator(self) -> Migrators:
        """The port."""
        return Migrators(self.layout, self.file)

    @property
    def settings(self) -> dict[str, str]:
        """What the app is served with."""
        return {"SECRET": "s3cret", "DATABASE_URL": f"sqlite:///{self.file}"}

    def release(
        self, name: str, files: Mapping[str, str], *, entry: str = "wsgi:create_app()", venv: str = "full"
    ) -> Manifest:
        """Lay a release of these files."""
        for path, content in files.items():
            file = self.layout.source(name) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        if venv:
            self.layout.venv(name).symlink_to(self.venvs / venv)
        return Manifest(release=name, revision="0" * 40, title="", config=CONFIG, entry=entry)

    def migrating(self, name: str, revisions: dict[str, str], *, app: str | None = None) -> Manifest:
        """Lay a release with Flask-Migrate's own folder and these revisions, each a file's content by its name."""
        shutil.copytree(self.skeleton, self.layout.source(name) / "migrations")
        files = {f"migrations/versions/{one}.py": content for one, content in revisions.items()}
        return self.release(name, {"wsgi.py": app_source() if app is None else app, **files})

    def dump(self) -> list[str]:
        """Tell all that is in the live database: tables, rows, and what Alembic noted."""
        with contextlib.closing(sqlite3.connect(self.file)) as connection:
            return list(connection.iterdump())

    def state(self, manifest: Manifest) -> SchemaState:
        """Compare, and prove that the live database and the release were left as they were."""
        before = prints(self.layout.root)
        try:
            return self.migrator.state(manifest, self.settings)
        finally:
            assert prints(self.layout.root) == before

    def refusal(self, manifest: Manifest) -> StepFailed:
        """Give what `state` raises."""
        with pytest.raises(StepFailed) as caught:
            self.state(manifest)
        return caught.value

    def failure(self, manifest: Manifest) -> StepFailed:
        """Give what `create` raises."""
        with pytest.raises(StepFailed) as caught:
            self.migrator.create(manifest, self.settings)
        return caught.value

    def sql(self, script: str) -> None:
        """Change the live database."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(self.file)) as connection:
            connection.executescript(script)


def lay_flask_migrate(house: House, steps: int) -> Manifest:
    """Lay revisions, each of which makes a table."""
    return house.migrating(str(steps), line(steps), app=app_source(models=models(steps)))


def lay_alembic(house: House, steps: int) -> Manifest:
    """Lay an app that knows Alembic alone, with its folder where it likes."""
    files = {
        "wsgi.py": "app = print",
        "alembic.ini": "[alembic]\nscript_location = %(here)s/db\n",
        "db/env.py": PLAIN_ENV,
        "db/versions/README": "",
        **{f"db/versions/{name}.py": content for name, content in line(steps).items()},
    }
    return house.release(str(steps), files, entry="wsgi:app")


def lay_create_all(house: House, steps: int) -> Manifest:
    """Lay an app with models and no migrations."""
    return house.release(str(steps), {"wsgi.py": app_source(models=models(steps))})
