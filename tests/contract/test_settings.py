"""The port SettingsStore, over files and in memory, and what only files have to prove; and the reading of a .env."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from bulletproof.adapters.settings import FileSettings
from bulletproof.domain.layout import Layout
from bulletproof.effects.dotenv import read_dotenv
from bulletproof.errors import UsageError
from bulletproof.ports import SettingsStore
from fakes.settings import FakeSettings

SECRET = "s3cret-Wörd 'with\nall=sorts' of ${things}"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Give a tree that does not exist yet."""
    return Layout(root=tmp_path / "root", app="shop", runtime=tmp_path / "run")


@pytest.fixture(params=["files", "memory"])
def store(request: pytest.FixtureRequest, layout: Layout) -> SettingsStore:
    """Give each implementation of the port, empty."""
    return FileSettings(layout) if request.param == "files" else FakeSettings()


class TestContract:
    """What every store does."""

    def test_nothing_set(self, store: SettingsStore) -> None:
        """A store in which nothing was set is empty in every respect."""
        assert store.today() == {}
        assert store.frozen(1) == {}
        assert store.numbers() == ()

    def test_a_value_comes_back_as_it_was(self, store: SettingsStore) -> None:
        """What was written is what is read, whatever letters it is made of."""
        store.write({"SECRET": SECRET, "EMPTY": ""})

        assert store.today() == {"SECRET": SECRET, "EMPTY": ""}

    def test_writing_replaces(self, store: SettingsStore) -> None:
        """A name that is not written again is gone."""
        store.write({"A": "1", "B": "2"})
        store.write({"B": "3"})

        assert store.today() == {"B": "3"}

    def test_a_copy_is_its_own(self, store: SettingsStore) -> None:
        """A deployment's copy changes neither with today's settings nor with another's copy."""
        store.write({"A": "today"})
        store.freeze(2, {"A": "two"})
        store.freeze(10, {"A": "ten"})
        store.write({"A": "tomorrow"})

        assert (store.frozen(2), store.frozen(10), store.today()) == ({"A": "two"}, {"A": "ten"}, {"A": "tomorrow"})

    def test_freezing_again_is_the_last_word(self, store: SettingsStore) -> None:
        """A step that is repeated after a crash may write its copy again."""
        store.freeze(2, {"A": "1"})
        store.freeze(2, {"A": "2"})

        assert store.frozen(2) == {"A": "2"}

    def test_numbers_are_in_order_of_number(self, store: SettingsStore) -> None:
        """Deployment 10 comes after deployment 2."""
        for number in (10, 2, 1):
            store.freeze(number, {})

        assert store.numbers() == (1, 2, 10)

    def test_discard_is_idempotent(self, store: SettingsStore) -> None:
        """A copy is gone after discarding it, also twice, and one that never was is no error."""
        store.freeze(2, {"A": "1"})
        store.freeze(3, {"A": "1"})
        for _ in range(2):
            store.discard(2)
        store.discard(99)

        assert store.numbers() == (3,)
        assert store.frozen(2) == {}

    def test_what_is_given_out_is_no_handle(self, store: SettingsStore) -> None:
        """Changing what was read or written changes nothing in the store."""
        given = {"A": "1"}
        store.write(given)
        given["A"] = "2"
        store.today()["A"] = "3"

        assert store.today() == {"A": "1"}


class TestFiles:
    """What only files have to prove."""

    def test_only_the_owner_can_read(self, layout: Layout) -> None:
        """Files are 0600 in folders of 0700, whatever the umask."""
        before = os.umask(0)
        try:
            FileSettings(layout).write({"SECRET": SECRET})
            FileSettings(layout).freeze(7, {"SECRET": SECRET})
        finally:
            os.umask(before)

        for file in (layout.environment, layout.settings(7)):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700

    def test_a_loose_mode_is_tightened_by_writing(self, layout: Layout) -> None:
        """A file that somebody opened to everyone is private again after the next write."""
        store = FileSettings(layout)
        store.write({"A": "1"})
        layout.environment.chmod(0o644)
        store.write({"A": "2"})

        assert stat.S_IMODE(layout.environment.stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b'{"A": 1}',
            b'{"A": "s3cret',
            b'{"A": "\xff s3cret"}',
            b'{"": "s3cret"}',
            b'{"A=B": "s3cret"}',
        ],
    )
    def test_damage_is_said_without_a_value(self, layout: Layout, content: bytes) -> None:
        """A damaged file is refused, by name and never with what is in it, and stays as it is."""
        layout.environment.parent.mkdir(parents=True)
        layout.environment.write_bytes(content)

        with pytest.raises(UsageError) as caught:
            FileSettings(layout).today()

        assert caught.value.reference == "settings-damaged"
        assert str(layout.environment) in caught.value.message
        _tells_no_secret(caught.value)
        assert layout.environment.read_bytes() == content

    def test_a_planted_symlink_is_not_read(self, layout: Layout, tmp_path: Path) -> None:
        """A symlink in place of the file is refused, even when it leads to good settings."""
        (tmp_path / "planted").write_text('{"A": "1"}')
        layout.environment.parent.mkdir(parents=True)
        layout.environment.symlink_to(tmp_path / "planted")

        with pytest.raises(UsageError, match="is a symlink"):
            FileSettings(layout).today()

    def test_a_planted_symlink_is_not_written_through(self, layout: Layout, tmp_path: Path) -> None:
        """Writing puts a file of ours in a symlink's place and leaves alone what it led to."""
        victim = tmp_path / "victim"
        victim.write_text("precious")
        for file in (layout.environment, layout.settings(3)):
            file.parent.mkdir(parents=True)
            file.symlink_to(victim)
        FileSettings(layout).write({"A": "1"})
        FileSettings(layout).freeze(3, {"A": "3"})

        assert victim.read_text() == "precious"
        assert FileSettings(layout).today() == {"A": "1"}
        assert not layout.environment.is_symlink()
        assert not layout.settings(3).is_symlink()

    def test_a_planted_pipe_does_not_hang(self, layout: Layout) -> None:
        """A named pipe in place of the file is refused at once, instead of being waited for."""
        layout.environment.parent.mkdir(parents=True)
        os.mkfifo(layout.environment)

        with pytest.raises(UsageError, match="no regular file"):
            FileSettings(layout).today()

    def test_other_files_are_no_copies(self, layout: Layout) -> None:
        """What a killed write or a person left in the folder is no deployment's copy."""
        FileSettings(layout).freeze(3, {})
        for name in ("4.json.old", ".bp-new-5.json", "05.json", "notes"):
            (layout.frozen_settings / name).write_text("{}")

        assert FileSettings(layout).numbers() == (3,)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("A", "s3cret\0"), ("A", "s3cret\udcff"), ("", "s3cret"), ("A=B", "s3cret"), ("A\0", "s3cret")],
    )
    def test_what_no_process_can_be_given_is_not_stored(self, layout: Layout, name: str, value: str) -> None:
        """A setting that an environment cannot hold is refused without its value, and today's stay."""
        store = FileSettings(layout)
        store.write({"A": "1"})

        with pytest.raises(UsageError) as caught:
            store.write({name: value})

        assert caught.value.reference == "setting-not-usable"
        _tells_no_secret(caught.value)
        assert store.today() == {"A": "1"}

    def test_a_repr_tells_no_value(self, layout: Layout) -> None:
        """The store itself can be printed."""
        store = FileSettings(layout)
        store.write({"A": "s3cret"})

        assert "s3cret" not in repr(store)

    def test_a_reader_sees_one_writing_whole(self, layout: Layout) -> None:
        """While settings are replaced again and again, whoever reads sees the one or the other."""
        store = FileSettings(layout)
        wishes = [{f"NAME_{index}": letter * 2000 for index in range(20)} for letter in "ab"]
        store.write(wishes[0])
        end = threading.Event()

        def write() -> None:
            while not end.is_set():
                for wish in wishes:
                    store.write(wish)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            seen = [store.today() for _ in range(60)]
        finally:
            end.set()
            writer.join()

        assert all(settings in wishes for settings in seen)


class TestDotenv:
    """The reading of a .env file."""

    def test_forms(self, tmp_path: Path) -> None:
        """Quotes, `export`, comments, a byte order mark are understood; the last of two wins; a bare name is none."""
        file = tmp_path / ".env"
        file.write_text("\ufeffA=1\nexport B='x y' # why\nC\nD=\"a\\nb\"\n\n# E=5\nF=\nA=2\n", encoding="utf-8")

        assert read_dotenv(file) == {"A": "2", "B": "x y", "D": "a\nb", "F": ""}

    def test_nothing_is_put_in(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A value with `${…}` stays as written, whatever our own environment holds."""
        monkeypatch.setenv("HOME_OF_IT", "ours")
        file = tmp_path / ".env"
        file.write_text("A=1\nB=${A}-${HOME_OF_IT}\n")

        assert read_dotenv(file)["B"] == "${A}-${HOME_OF_IT}"

    @pytest.mark.parametrize("line", ["s3cret line", "A='s3cret", "=s3cret"])
    def test_a_line_that_is_none_is_told_by_its_number(self, tmp_path: Path, line: str) -> None:
        """A line that would be skipped is an error with its number and without its text."""
        file = tmp_path / ".env"
        file.write_text(f"A=1\n{line}\n")

        with pytest.raises(UsageError, match="line 2") as caught:
            read_dotenv(file)

        assert caught.value.reference == "dotenv-damaged"
        _tells_no_secret(caught.value)

    @pytest.mark.parametrize("content", [None, b"A=\xff s3cret"])
    def test_an_unreadable_file_is_said(self, tmp_path: Path, content: bytes | None) -> None:
        """A file that is missing or no text is an error in words."""
        file = tmp_path / ".env"
        if content is not None:
            file.write_bytes(content)

        with pytest.raises(UsageError) as caught:
            read_dotenv(file)

        assert caught.value.reference == "dotenv-not-readable"
        _tells_no_secret(caught.value)


def _tells_no_secret(error: UsageError) -> None:
    """Neither the error nor what a traceback would show of its cause tells the value."""
    shown = [repr(error), error.message, error.hint, *error.context, repr(error.__cause__)]
    if not error.__suppress_context__:
        shown.append(repr(error.__context__))

    assert "s3cret" not in "".join(shown)
