"""Django's migrations, by a real Django: what is to come, there and back, and what cannot work with what."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from bulletproof.domain.config import AppConfig, Migrations
from bulletproof.domain.settings import NOT_YET_OURS
from bulletproof.effects.process import Completed, run
from bulletproof.effects.sqlite_census import census
from bulletproof.errors import StepFailed
from bulletproof.ports import Command, Manifest
from django_project import FIRST, NOTE, PAGES, WRITTEN, migration, project
from migrating import House

ENTRY = "shop.wsgi:application"
PAGES_FIELD = "pages = models.IntegerField(default=0)"
NOTE_FIELD = "note = models.TextField(null=True)"
FAILS = 'migrations.RunSQL("CREATE UNIQUE INDEX one_title ON books_book (title)", "DROP INDEX one_title"),'


def laid(house: House, name: str, files: dict[str, str], *, entry: str = ENTRY) -> Manifest:
    """Lay a release that runs in an environment with Django."""
    return house.release(name, files, entry=entry, venv="django")


def first(house: House) -> Manifest:
    """Lay the first release, with its database and two books of the same title."""
    manifest = laid(house, "1", project())
    assert "made" in house.migrator.create(manifest, house.settings)
    house.sql("INSERT INTO books_book (title) VALUES ('Emma'), ('Emma')")
    return manifest


def done(command: Command | None, **environment: str) -> Completed:
    """Run what the migrator gave."""
    assert command is not None
    return run(
        command.argv, folder=command.folder, environment={**command.environment, **environment}, timeout_seconds=60
    )


def rows(house: House, query: str) -> list[tuple[object, ...]]:
    """Ask the live database."""
    with contextlib.closing(sqlite3.connect(house.file)) as connection:
        return connection.execute(query).fetchall()


def test_a_new_database_is_made_and_fits(house: House) -> None:
    """All migrations run, those of installed apps too, and then nothing is to come."""
    manifest = laid(house, "1", project())
    before = house.state(manifest)
    assert (before.tool, before.current, before.unknown) == ("django", (), ())
    assert {"contenttypes.0001_initial", "books.0001_initial"} <= set(before.pending)

    assert house.migrator.create(manifest, house.settings).startswith("python manage.py migrate --noinput made ")
    state = house.state(manifest)
    assert state.fits
    assert rows(house, "SELECT app, name FROM django_migrations WHERE app = 'books'") == [("books", "0001_initial")]


def test_rows_stay_in_an_upgrade(house: House) -> None:
    """What is to come is told by app and name; afterwards the rows are there, with the new column."""
    first(house)
    newer = laid(house, "2", project(PAGES, fields=(PAGES_FIELD,)))
    assert house.state(newer).pending == ("books.0002_more",)

    command = house.migrator.upgrade(newer, house.settings)
    assert command is not None
    assert command.words == "python manage.py migrate --noinput"
    assert done(command).status == 0
    assert house.state(newer).fits
    assert rows(house, "SELECT title, pages FROM books_book") == [("Emma", 0), ("Emma", 0)]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_failure_on_a_copy_leaves_the_live_file(house: House, tmp_path: Path, *, atomic: bool) -> None:
    """The command goes where its environment leads: a migration that fails half-way there changes nothing here."""
    first(house)
    newer = laid(house, "2", project(PAGES, FAILS, fields=(PAGES_FIELD,), atomic=atomic))
    copy = tmp_path / "copy.db"
    copy.write_bytes(house.file.read_bytes())
    before = house.dump()

    completed = done(house.migrator.upgrade(newer, house.settings), DATABASE_URL=f"sqlite:///{copy}")

    assert completed.status == 1
    assert "UNIQUE constraint failed: books_book.title" in completed.errors
    assert house.dump() == before
    is_half_done = "pages" in census(copy).tables["books_book"].columns
    assert is_half_done is not atomic


def test_there_and_back(house: House) -> None:
    """A down migration ends exactly where the older release ends, and the older one then fits."""
    older = first(house)
    newer = laid(house, "2", project(PAGES, NOTE, fields=(PAGES_FIELD, NOTE_FIELD)))
    assert done(house.migrator.upgrade(newer, house.settings)).status == 0
    assert house.state(older).unknown == ("books.0002_more",)

    command = house.migrator.downgrade(newer, house.settings, older)
    assert command is not None
    assert command.words == "python manage.py migrate books 0001_initial --noinput"
    assert done(command).status == 0
    assert house.state(older).fits
    assert rows(house, "SELECT title FROM books_book") == [("Emma",), ("Emma",)]
    assert census(house.file).tables["books_book"].columns.keys() == {"id", "title"}


def test_an_app_that_is_new_goes_whole(house: House) -> None:
    """Apps that the older release does not have are taken back to zero; until then their notes trouble nobody."""
    older = first(house)
    newer = laid(house, "2", project(apps=', "django.contrib.sites"'))
    assert done(house.migrator.upgrade(newer, house.settings)).status == 0
    assert house.state(older).fits

    command = house.migrator.downgrade(newer, house.settings, older)
    assert command is not None
    assert command.words == "python manage.py migrate sites zero --noinput"
    assert done(command).status == 0
    assert "django_site" not in census(house.file).tables


@pytest.mark.parametrize(
    "operation",
    [
        "migrations.RunPython(nothing),",
        'migrations.RunSQL("UPDATE books_book SET title = 1"),',
        'migrations.SeparateDatabaseAndState(database_operations=[migrations.RunSQL("DELETE FROM books_book")]),',
    ],
)
def test_what_cannot_be_undone_has_no_way_back(house: House, operation: str) -> None:
    """Code or SQL without its reverse is a reason not to try; with a reverse there is a way."""
    older = laid(house, "1", project())
    assert house.migrator.downgrade(laid(house, "2", project(PAGES, operation)), house.settings, older) is None
    reversible = laid(house, "3", project("migrations.RunPython(nothing, nothing),"))
    assert house.migrator.downgrade(reversible, house.settings, older) is not None


def test_a_squashed_migration_is_never_taken_back(house: House) -> None:
    """Its older names are known, so nothing is to come; going back is not offered, since it would drop the table."""
    older = first(house)
    files = project()
    squashed = migration(FIRST).replace("    atomic", "    replaces = [('books', '0001_initial')]\n    atomic")
    files["books/migrations/0001_squashed.py"] = squashed
    newer = laid(house, "2", files)
    (house.layout.source("2") / "books/migrations/0001_initial.py").unlink()

    assert house.state(newer).fits
    assert house.migrator.downgrade(newer, house.settings, older) is None


def test_the_same_migrations_have_no_way_back(house: House) -> None:
    """Where nothing is to be taken back there is no command, least of all one that migrates forward."""
    older = laid(house, "1", project())
    assert house.migrator.downgrade(laid(house, "2", project()), house.settings, older) is None


def test_misfits(house: House) -> None:
    """A column that the models lack or need, and a table that is not there, are told in words."""
    older = first(house)
    newer = laid(house, "2", project(PAGES, fields=(PAGES_FIELD,)))
    before = census(house.file)
    assert house.migrator.misfits(older, house.settings, before) == ()
    assert house.migrator.misfits(newer, house.settings, before) == ("table books_book lacks column pages",)

    assert done(house.migrator.upgrade(newer, house.settings)).status == 0
    after = census(house.file)
    assert house.migrator.misfits(newer, house.settings, after) == ()
    required = "table books_book requires column pages, which the model does not know"
    assert house.migrator.misfits(older, house.settings, after) == (required,)

    house.sql("DROP TABLE auth_user_groups")
    missing = house.migrator.misfits(newer, house.settings, census(house.file))
    assert missing == ("table auth_user_groups is missing",)


@pytest.mark.parametrize("field", ["IntegerField(db_default=0)", "IntegerField(null=True)"])
def test_older_code_fits_what_it_need_not_fill(house: House, field: str) -> None:
    """A new column that the database itself fills, or that may be empty, troubles no older release."""
    older = first(house)
    newer = laid(house, "2", project(f'migrations.AddField("book", "pages", models.{field}),'))
    assert done(house.migrator.upgrade(newer, house.settings)).status == 0
    assert "pages" in census(house.file).tables["books_book"].columns
    assert house.migrator.misfits(older, house.settings, census(house.file)) == ()


def test_a_path_in_the_settings_is_refused(house: House) -> None:
    """A project that writes down where its database is would write into the release: nothing is made or changed."""
    manifest = laid(house, "1", project(database=WRITTEN))
    with pytest.raises(StepFailed) as caught:
        house.migrator.create(manifest, house.settings)
    assert caught.value.reference == "setting-ignored"
    assert f"sqlite {house.layout.source('1')}/db.sqlite3" in caught.value.message
    assert not house.file.exists()
    assert not (house.layout.source("1") / "db.sqlite3").exists()


def besides(name: str) -> str:
    """Settings with a second database, of this name."""
    return f'dj_database_url.config(), "audit": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {name}}}'


def test_a_second_database_is_told_and_left_alone(house: House, tmp_path: Path) -> None:
    """It is not migrated, and each deployment says what does not hold for it."""
    other = tmp_path / "audit.sqlite3"
    manifest = laid(house, "1", project(database=besides(f'"{other}"')))
    told = house.migrator.create(manifest, house.settings)
    assert told.splitlines()[1] == f"audit (SQLite, {other}): {NOT_YET_OURS}"
    assert house.state(manifest).others == (f"audit (SQLite, {other})",)
    assert house.state(manifest).fits
    assert not other.exists()


def test_a_second_database_in_the_release_is_refused(house: House) -> None:
    """Each release would have its own, empty one: nothing is made, and it is said what to write."""
    manifest = laid(house, "1", project(database=besides('BASE_DIR / "data" / "audit.sqlite3"')))
    error = house.failure(manifest)
    assert error.reference == "database-in-release"
    assert "the database audit is data/audit.sqlite3 in the source" in error.message
    assert error.hint == 'app.persistent = ["data"] in bulletproof.toml'
    assert not house.file.exists()


def test_tables_without_a_note(house: House) -> None:
    """Nobody guesses which migrations made tables that Django has not noted."""
    house.sql("CREATE TABLE books_book (id INTEGER PRIMARY KEY)")
    error = house.refusal(laid(house, "1", project()))
    assert error.reference == "schema-unknown"
    assert "books_book" in error.message


def test_several_ends(house: House) -> None:
    """Two migrations after the same one are told with the command that joins them."""
    files = project(PAGES)
    files["books/migrations/0002_other.py"] = migration(NOTE, after="0001_initial")
    error = house.refusal(laid(house, "1", files))
    assert error.reference == "migrations-not-readable"
    assert "books (0002_more, 0002_other); python manage.py makemigrations --merge" in error.message


def test_a_command_of_its_own_comes_first(house: House) -> None:
    """A project that names a command is migrated by that, and by it alone."""
    own = AppConfig(name="shop", migrations=Migrations(command="python other.py"))
    manifest = replace(laid(house, "1", project()), config=own)
    assert house.state(manifest).tool == "command"
    assert house.migrator.downgrade(manifest, house.settings, manifest) is None


def test_the_settings_are_those_of_the_server(house: House) -> None:
    """The entry says which settings count, whatever manage.py says for a person's own machine."""
    files = project()
    files["manage.py"] = files["manage.py"].replace("shop.settings", "shop.settings_of_nobody")
    assert house.state(laid(house, "1", files)).tool == "django"
    assert house.state(laid(house, "2", files, entry="shop.asgi:application")).tool == "django"
