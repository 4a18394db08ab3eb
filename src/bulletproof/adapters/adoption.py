"""What an app's users made before its first deployment: found by asking the app in a cell, and copied."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import msgspec
from msgspec.structs import replace

from bulletproof.domain.account import Account
from bulletproof.domain.config import AppConfig
from bulletproof.domain.layout import Layout
from bulletproof.domain.web import surroundings
from bulletproof.effects import durable, tree
from bulletproof.effects.isolation import Cell, end_at_once, is_remapped, start_in_cell, why_not
from bulletproof.effects.logs import tail
from bulletproof.effects.ownership import give, hand_tree, read_plain, share
from bulletproof.effects.sqlite_copy import copy_database, settle_copy
from bulletproof.effects.sqlite_file import read_whole
from bulletproof.effects.sqlite_found import DatabaseFile, database_files, describe_database, is_database, users_of
from bulletproof.errors import Refused, StepFailed
from bulletproof.ports import Manifest, Origin

_ANSWER = Path(__file__).with_name("inside") / "answer.py"
_SECONDS = 60.0
"""An import takes seconds; what lasts longer hangs."""
_LAST_LINES = 3


class _Opened(msgspec.Struct, frozen=True, kw_only=True):
    main: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    trouble: str = ""


class CheckoutAdoption(msgspec.Struct, frozen=True):
    """The port Adoption; `database` is where the live one is to lie."""

    layout: Layout
    database: Path
    user: Account | None = None
    """As whom the app runs, when we are root."""

    def find(self, number: int, manifest: Manifest, folder: Path, settings: Mapping[str, str]) -> Origin:
        """Ask a built release what it opens with these settings, and see what of it is there in `folder`."""
        there = [describe_database(file) for file in database_files(folder)]
        if reason := why_not():
            return Origin(others=_listed(there, folder), trouble=f"no app can be asked on this machine ({reason})")
        opened = self._ask(number, manifest, settings)
        seen = (self._source_seen(number, manifest), self.layout.data)
        files = [_moved(Path(name), seen, folder) for name in opened.main[:1] or opened.others]
        # One that cannot be read now is found as well: to begin without it would be to lose it.
        found = next((about for file in files if (about := _about(file)) and (about.tables or about.problem)), None)
        folders = [_moved(Path(name), seen, folder) for name in opened.folders]
        return replace(
            _origin(found) if found else Origin(),
            opens=_shown(files[0], folder) if files else "",
            others=_listed([one for one in there if not (found and one.path.samefile(found.path))], folder),
            folders=tuple(_shown(one, folder) for one in folders if one != folder and one.is_relative_to(folder)),
            trouble=opened.trouble,
        )

    def describe(self, file: Path) -> Origin:
        """What a database holds that a person named. Raises StepFailed `database-not-found`."""
        if not is_database(file):
            raise StepFailed("database-not-found", f"{file} is no SQLite database", hint=f"ls -l {file}")
        about = describe_database(file)
        if about.problem:
            raise StepFailed("database-not-found", f"{file} {about.problem}", hint=f"ls -l {file}")
        return _origin(about)

    def take(self, number: int, file: Path) -> str:
        """Copy the database through SQLite's own backup, read the copy through, and put it where the live one lies."""
        durable.make_folder(self.database.parent, mode=0o700)
        copy, place = self._unfinished(number), self.database.resolve()  # a person may have laid a link there
        _remove(copy)
        try:
            copy_database(file, copy)
            settle_copy(copy)
            reading = read_whole(copy)
            give(copy, self.user)
            durable.rename(copy, place)
        except Refused as error:
            words = f"the database {file} was copied, and the copy is not whole: {error.message}"
            raise StepFailed("database-not-copied", words, context=error.context, hint=error.hint) from error
        finally:
            _remove(copy)
        return f"{len(reading.tables)} tables"

    def discard(self, number: int) -> None:
        """Nothing is left of a copy that was not finished."""
        _remove(self._unfinished(number))

    def _unfinished(self, number: int) -> Path:
        return self.database.resolve().with_name(f"{durable.LEFTOVER_PREFIX}adopt-{number}.db")

    def fill(self, folder: Path, names: tuple[str, ...]) -> int:
        """Copy every file of these folders that the persistent ones do not have yet, each whole or not at all."""
        there = [name for name in names if (folder / name).is_dir()]
        count = sum(_fill(folder / name, self.layout.persistent / name) for name in there)
        for name in there:
            share(self.layout.persistent / name, self.user)
        return count

    def _ask(self, number: int, manifest: Manifest, settings: Mapping[str, str]) -> _Opened:
        """Load the release in a cell where its source can be written to, since it is a copy that is gone afterwards."""
        scratch = self.layout.rehearsal(number)
        durable.remove_tree(scratch)
        try:
            for name in ("root", "told", *(f"data/{one}" for one in manifest.config.app.persistent)):
                durable.make_folder(scratch / name, mode=0o700)
            durable.make_folder(scratch / "data", mode=0o700)
            tree.copy_tree(self.layout.source(manifest.release), scratch / "source")
            self._leave_links_out(scratch / "source", manifest.config)
            if self.user is not None:
                for name in ("source", "data", "told"):
                    hand_tree(scratch / name, self.user)
            self._run(number, manifest, settings)
            answer = scratch / "told" / "answer.json"
            if (content := read_plain(answer)) is not None:
                return msgspec.json.decode(content, type=_Opened)
            said = " / ".join(tail(scratch / "log", _LAST_LINES)) or "it said nothing"
            return _Opened(trouble=f"it gave no answer: {said}")
        finally:
            durable.remove_tree(scratch)

    def _leave_links_out(self, source: Path, config: AppConfig) -> None:
        """No link to our own database in the copy, or the app would open that; the persistent folders are empty."""
        for link in config.database.links:
            if not any(PurePosixPath(link).is_relative_to(one) for one in config.app.persistent):
                durable.remove(source / link)

    def _run(self, number: int, manifest: Manifest, settings: Mapping[str, str]) -> None:
        scratch, config = self.layout.rehearsal(number), manifest.config
        source, venv = self._source_seen(number, manifest), self.layout.venv(manifest.release)
        python, told = venv / "bin" / "python", scratch / "told"
        # As where it was developed: its own settings, the person's home, and no database that we would name.
        ours = {"FLASK_APP": manifest.entry, "FLASK_SKIP_DOTENV": "1", "HOME": str(Path.home())}
        running = start_in_cell(
            Cell(
                mount_point=scratch / "root",
                read_only=(self.layout.release(manifest.release), python.resolve().parents[1], _ANSWER),
                writable={scratch / "source": source, scratch / "data": self.layout.data, told: told},
                memory_bytes=config.rehearsal.memory_mib << 20,
                account=self.user,
            ),
            (
                *(str(python), str(_ANSWER), "opens", str(told / "answer.json"), str(source)),
                *(manifest.entry, config.app.server.value, *dict.fromkeys((*config.health.paths, "/up", "/"))),
            ),
            folder=source,
            environment={**settings, **surroundings(source, venv, self.layout.data), **ours},
            log=scratch / "log",
        )
        try:
            running.wait(_SECONDS)
        finally:
            end_at_once(running)

    def _source_seen(self, number: int, manifest: Manifest) -> Path:
        """Where the app sees its source: where no path is remapped, that is the copy's own place."""
        return self.layout.source(manifest.release) if is_remapped() else self.layout.rehearsal(number) / "source"


def _moved(place: Path, bases: Iterable[Path], folder: Path) -> Path:
    """The place in the project's folder that a place in the app's source, or in its persistent folders, stands for."""
    for base in (one for given in bases for one in (given, given.resolve())):
        if place.is_relative_to(base):
            return folder / place.relative_to(base)
    return place


def _about(file: Path) -> DatabaseFile | None:
    return describe_database(file) if file.is_file() and is_database(file) else None


def _origin(about: DatabaseFile) -> Origin:
    return Origin(file=about.path, words=about.words, size=about.size, users=users_of(about.path))


def _listed(files: list[DatabaseFile], folder: Path) -> tuple[str, ...]:
    return tuple(f"{_shown(one.path, folder)}: {one.words}" for one in files)


def _shown(place: Path, folder: Path) -> str:
    return str(place.relative_to(folder)) if place.is_relative_to(folder) else str(place)


def _remove(copy: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        durable.remove(copy.with_name(copy.name + suffix))


def _fill(folder: Path, kept: Path) -> int:
    """Copy the files that `kept` lacks; what is no file or folder is left, since it may lead anywhere."""
    count = 0
    for place in tree.walked(folder, is_entered=lambda _: True):
        file, copy = folder / place, kept / place
        is_wanted = file.is_file() and not file.is_symlink() and not _is_of_database(file)
        if is_wanted and not os.path.lexists(copy):
            durable.make_folder(copy.parent, mode=0o750)
            durable.copy_file(file, copy, mode=0o640)
            count += 1
    return count


def _is_of_database(file: Path) -> bool:
    """Whether it is a database, or lies beside one: that is no file to be copied byte by byte."""
    plain = next((file.name.removesuffix(end) for end in ("-wal", "-shm", "-journal") if file.name.endswith(end)), "")
    return is_database(file.with_name(plain) if plain else file)
