"""The replica's configuration, the times that people write, and which backups a point in time keeps."""

from __future__ import annotations

import importlib.metadata
import json
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bulletproof.adapters.litestream import LitestreamReplica
from bulletproof.domain.backup import Backup, BackupManifest, Reason, backups_to_remove
from bulletproof.domain.config import Keep
from bulletproof.domain.deployment import Kind
from bulletproof.domain.layout import Layout
from bulletproof.domain.offsite import Connection
from bulletproof.domain.process import is_replica
from bulletproof.domain.replica import Step, configuration, read_moment, require_since
from bulletproof.effects.sqlite_census import census
from bulletproof.effects.sqlite_copy import compare_rows
from bulletproof.effects.sqlite_file import read_everything
from bulletproof.engine.journal import Beginning, Journal
from bulletproof.errors import Refused, StepFailed, UsageError

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
_BUCKET = Connection(
    url="s3://backups/shops/",
    secrets={"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": 's"3/+\\', "AWS_ENDPOINT_URL": "http://127.0.0.1:9/"},
    is_continuous=True,
)


def layout_in(folder: Path) -> Layout:
    """Where an app lies below a folder."""
    return Layout(root=folder, app="shop", runtime=folder / "run")


# --- its configuration


def test_the_configuration_of_a_bucket_has_the_keys_and_a_folder_below_the_prefix() -> None:
    """Beside the backups of the app, and with path-style addresses, as these use."""
    told = json.loads(configuration(_BUCKET, layout_in(Path("/r")), Path("/r/app.db")))
    (database,) = told["dbs"]
    assert database == {
        "path": "/r/app.db",
        "meta-path": "/r/var/lib/bulletproof/shop/replica",
        "replica": {
            "type": "s3",
            "bucket": "backups",
            "path": "shops/shop/replica",
            "region": "us-east-1",
            "access-key-id": "AK",
            "secret-access-key": 's"3/+\\',
            "force-path-style": True,
            "endpoint": "http://127.0.0.1:9",
        },
    }


@pytest.mark.parametrize(
    ("url", "path"), [("file:///mnt/disk/", "/mnt/disk/shop/replica"), ("file:///", "/shop/replica")]
)
def test_the_configuration_of_a_folder_is_its_path(url: str, path: str) -> None:
    """Also at the root of a disk."""
    told = json.loads(configuration(Connection(url=url), layout_in(Path("/r")), Path("/r/app.db")))
    assert told["dbs"][0]["replica"] == {"type": "file", "path": path}


@pytest.mark.parametrize(
    ("connection", "reference"),
    [
        (Connection(url="sftp://nas/backups"), "replica-not-over-sftp"),
        (Connection(url="s3://backups", secrets={"AWS_SESSION_TOKEN": "t"}), "replica-keys-expire"),
    ],
)
def test_what_could_not_go_on_is_refused(connection: Connection, reference: str) -> None:
    """A place that Litestream reaches otherwise than we do, and keys that end."""
    with pytest.raises(Refused) as refused:
        configuration(connection, layout_in(Path("/r")), Path("/r/app.db"))
    assert refused.value.reference == reference


def test_the_process_is_another_when_the_place_is(tmp_path: Path) -> None:
    """Its name tells them apart, its secrets are in a private file alone, and that goes when nobody wishes it."""
    wished: list[Connection | None] = [_BUCKET]
    replica = LitestreamReplica(layout_in(tmp_path), tmp_path / "app.db", lambda: wished[0])
    first, again = replica.process(), replica.process()
    assert first is not None
    assert first == again
    assert is_replica(first.name)
    assert 's"3/+' not in repr(first)
    assert replica.layout.replica.stat().st_mode & 0o777 == 0o600
    wished[0] = Connection(url="file:///mnt", is_continuous=True)
    other = replica.process()
    assert other is not None
    assert other.name != first.name
    wished[0] = Connection(url="file:///mnt")
    assert replica.process() is None
    assert not replica.layout.replica.exists()


def test_without_the_program_it_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install, and before anything is written."""

    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(importlib.metadata, "files", missing)
    replica = LitestreamReplica(layout_in(tmp_path), tmp_path / "app.db", lambda: _BUCKET)
    with pytest.raises(Refused) as refused:
        replica.process()
    assert (refused.value.reference, refused.value.hint) == (
        "litestream-not-installed",
        "pip install 'bulletproof[offsite]'",
    )
    assert not replica.layout.replica.exists()


# --- times


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-27T11:30:00Z", NOW - timedelta(minutes=30)),
        ("2026-11-27 11:30", NOW - timedelta(minutes=30)),
        ("2026-11-27T12:30:00+01:00", NOW - timedelta(minutes=30)),
        ("10 minutes ago", NOW - timedelta(minutes=10)),
        ("1 day ago", NOW - timedelta(days=1)),
    ],
)
def test_a_time_is_read_as_it_is_meant(text: str, moment: datetime) -> None:
    """In UTC where no zone is named."""
    assert read_moment(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-27T12:00:01Z", "10 ago", "0001-01-01T00:00:00+23:00"])
def test_what_is_no_time_that_was_is_refused(text: str) -> None:
    """Neither words, nor the future, nor what no calendar has."""
    with pytest.raises(UsageError) as refused:
        read_moment(text, NOW)
    assert refused.value.reference == "time-odd"


def test_a_time_before_the_replica_is_refused_with_where_it_begins() -> None:
    """It begins with the oldest file that has the first transaction; without one there is none."""
    steps = [Step("0000000000000001", "0000000000000001", NOW), Step("0000000000000002", "2", NOW - timedelta(days=1))]
    with pytest.raises(Refused, match="begins at 2026-11-27 12:00:00 UTC"):
        require_since(steps, NOW - timedelta(seconds=1))
    require_since(steps, NOW + timedelta(seconds=1))
    with pytest.raises(Refused) as refused:
        require_since(steps[1:], NOW)
    assert refused.value.reference == "replica-empty"


# --- a real one, of a folder


def test_a_replica_that_is_not_there_or_cannot_be_read_is_told_in_words(tmp_path: Path) -> None:
    """Nobody is told of a point that was not got."""
    (tmp_path / "disk").mkdir()
    connection = Connection(url=f"file://{tmp_path}/disk", secrets={"AWS_KEY": "hidden"}, is_continuous=True)
    replica = LitestreamReplica(layout_in(tmp_path), tmp_path / "app.db", lambda: connection)
    with pytest.raises(Refused) as refused:
        replica.lay(NOW, tmp_path / "point.db")
    assert refused.value.reference == "replica-empty"
    damaged = tmp_path / "disk" / "shop" / "replica" / "ltx" / "0" / "0000000000000001-0000000000000001.ltx"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"hidden")
    with pytest.raises(StepFailed) as failed:
        replica.lay(datetime.now(UTC) + timedelta(seconds=5), tmp_path / "point.db")
    assert failed.value.reference == "replica-failed"
    assert failed.value.context
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk"]


# --- what else takes note of it


def test_its_own_tables_are_nobodys_data(tmp_path: Path) -> None:
    """They are in no comparison, no schema and no count."""
    for name in ("one.db", "two.db"):
        with closing(sqlite3.connect(tmp_path / name)) as made, made:
            made.execute("CREATE TABLE note (id INTEGER)")
            made.execute("CREATE TABLE litestream (id INTEGER)")
    with closing(sqlite3.connect(tmp_path / "two.db")) as made, made:
        made.execute("CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)")
        made.execute("INSERT INTO _litestream_seq VALUES (1, 7)")
    assert compare_rows(tmp_path / "one.db", tmp_path / "two.db") == b"[]\n"
    assert set(census(tmp_path / "two.db").tables) == {"note", "litestream"}
    assert set(read_everything(tmp_path / "two.db").counts) == {"note", "litestream"}


def _backup(number: int, reason: Reason, day: int, release: str = "1-a") -> Backup:
    manifest = BackupManifest(
        format=1,
        app="shop",
        name=f"b{number}",
        reason=reason,
        deployment=None,
        release=release,
        revision="",
        settings=1,
        taken_at=f"2026-11-{day:02}T12:00:00.000+00:00",
        taken_by="test",
        database=None,
        tables={},
        migrations=(),
        sqlite="",
        bulletproof="",
    )
    return Backup(manifest=manifest, place=Path(f"/b{number}"), digest="")


def _removed(backups: Sequence[Backup], keep: Keep) -> set[str]:
    return set(backups_to_remove(backups, keep, ("1-a",), lambda _: False))


def test_a_point_takes_no_other_backups_place() -> None:
    """It holds older data: neither the newest backup of a release nor the last of a day goes for it."""
    day = [_backup(1, Reason.SCHEDULE, 20), _backup(2, Reason.SCHEDULE, 21), _backup(3, Reason.POINT, 20)]
    assert _removed(day, Keep(backups=1, daily=2, weekly=0, monthly=0)) == set()
    assert _removed(day, Keep(backups=1, daily=0, weekly=0, monthly=0)) == {"b1"}
    later = [*day, _backup(4, Reason.SCHEDULE, 22), _backup(5, Reason.POINT, 19)]
    assert _removed(later, Keep(backups=1, daily=0, weekly=0, monthly=0)) == {"b1", "b2", "b3"}


def test_the_journal_tells_what_was_live_at_a_time() -> None:
    """From its commit on, until it was stopped or another one was."""
    clock = iter(f"2026-11-27T12:00:{second:02}.000+00:00" for second in range(60))
    journal = Journal.in_memory(lambda: next(clock))
    for name in ("a", "b"):
        beginning = Beginning(
            kind=Kind.DEPLOY,
            pipeline="deploy",
            release=f"{{}}-{name}".format,
            revision="",
            title="",
            started_by="test",
        )
        record = journal.record(journal.begin(beginning).deployment.number)
        record.commit()
        record.close("deployed", "")
    assert journal.live_at("2026-11-27T12:00:00.500+00:00") is None
    for at, release in (("01.000", "1-a"), ("03.999", "1-a"), ("04.000", "2-b"), ("59.000", "2-b")):
        live = journal.live_at(f"2026-11-27T12:00:{at}+00:00")
        assert live is not None
        assert live.release == release
