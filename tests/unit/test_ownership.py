"""What root does where an app may write: owners and modes, no link followed, and reading with the rights of the app."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from bulletproof.domain.account import Account, Accounts, sandbox_of
from bulletproof.domain.layout import Layout
from bulletproof.domain.ownership import Owned, owned, strangers
from bulletproof.domain.process import PROXY, RELAY, backup_name, timer_name, web_name, worker_name
from bulletproof.effects.ownership import acting_as, claim, differences, make_missing, read_plain, share
from bulletproof.errors import Refused

NOBODY = Account(name="nobody", user=65534, group=65534)
ACCOUNTS = Accounts(
    app=Account(name="shop", user=901, group=901),
    proxy=Account(name="bulletproof-proxy", user=902, group=902),
    builder=Account(name="bulletproof-build", user=903, group=903),
)
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to others")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An empty root."""
    return Layout(root=tmp_path, app="shop", runtime=tmp_path / "run")


def test_nothing_of_the_apps_runs_as_another_or_writes_more_than_its_data(layout: Layout) -> None:
    """The web process, workers and timers are the app's; the proxy and the relay are not; the rest is ours."""
    for name in (web_name(3), worker_name(3, "mail", 1), timer_name(3, "tidy")):
        sandbox = sandbox_of(name, layout, ACCOUNTS)
        assert sandbox is not None
        assert (sandbox.account, sandbox.joins, sandbox.writable) == (ACCOUNTS.app, (), (layout.data,))
        assert not sandbox.has_low_ports
    for name in (PROXY, RELAY):
        sandbox = sandbox_of(name, layout, ACCOUNTS)
        assert sandbox is not None
        assert (sandbox.account, sandbox.joins) == (ACCOUNTS.proxy, ("shop",))
        assert layout.data not in sandbox.writable
        assert sandbox.has_low_ports == (name == PROXY)
    assert sandbox_of(backup_name("abc"), layout, ACCOUNTS) is None


def test_what_the_app_writes_it_cannot_rename(layout: Layout) -> None:
    """Database and uploads are root's, in a folder of root's that is sticky; all else is closed to the app."""
    table = {one.path: one for one in owned(layout, ACCOUNTS, ("uploads", "a/b"), "app.db")}
    for path in (layout.data, layout.data / "uploads", layout.data / "a", layout.data / "a" / "b"):
        assert (table[path].owner.user, table[path].group, table[path].mode) == (0, ACCOUNTS.app, 0o1770)
    database = table[layout.data / "app.db"]
    assert (database.owner.user, database.group, database.mode) == (0, ACCOUNTS.app, 0o660)
    for path in (layout.state, layout.environment.parent):
        assert (table[path].owner.user, table[path].group.user, table[path].mode) == (0, 0, 0o700)
    assert all(one.mode & 0o002 == 0 for one in table.values())


@needs_root
def test_a_link_is_refused_and_what_it_leads_to_is_left_alone(tmp_path: Path) -> None:
    """Neither looked through nor changed."""
    secret, link = tmp_path / "secret", tmp_path / "app.db"
    secret.write_text("root's")
    secret.chmod(0o600)
    link.symlink_to(secret)
    row = Owned(path=link, group=NOBODY, mode=0o660, is_folder=False)
    for act in (differences, claim):
        with pytest.raises(Refused, match="is not a plain file of one name"):
            act((row,))
    other = tmp_path / "other"
    other.hardlink_to(secret)
    with pytest.raises(Refused, match="is not a plain file"):
        claim((Owned(path=other, group=NOBODY, mode=0o660, is_folder=False),))
    assert (secret.stat().st_gid, secret.stat().st_mode & 0o777) == (0, 0o600)


@needs_root
def test_what_the_app_lays_beside_its_database_does_not_keep_us_from_it(tmp_path: Path) -> None:
    """A link gives way and is still to be found; another name of the app's own file is no harm."""
    link, wal, database = tmp_path / "app.db-journal", tmp_path / "app.db-wal", tmp_path / "app.db"
    link.symlink_to("/etc/shadow")
    for file, owner in ((wal, NOBODY.user), (database, 0)):
        file.write_text("rows")
        os.chown(file, owner, NOBODY.group)
        (tmp_path / f"{file.name}-twice").hardlink_to(file)
    database.chmod(0o660)
    rows = [Owned(path=one, group=NOBODY, mode=0o660, is_folder=False, gives_way=True) for one in (link, wal, database)]
    claim(rows)
    assert not os.path.lexists(link)
    (aside,) = tmp_path.glob("app.db-journal.not-plain-*")
    assert aside.is_symlink()
    assert (wal.read_text(), wal.stat().st_uid, wal.stat().st_mode & 0o777) == ("rows", 0, 0o660)
    assert differences(rows) == ()


def test_a_folder_of_another_program_is_no_apps(layout: Layout) -> None:
    """One that has the app's database is, whatever else is in it; so is what an earlier try has left."""
    left = {layout.home: {"releases"}, layout.data: {"uploads", ".bp-room"}, layout.logs: {"access.log", "web-1.log.1"}}
    assert strangers(layout, ("uploads/a",), "app.db", left) == ()
    assert strangers(layout, (), "app.db", {layout.data: {"app.db", "notes"}}) == ()
    taken = {layout.data: {"body", "uploads"}, layout.logs: {"access.log", "other_access.log"}, layout.home: {"bin"}}
    told = {layout.data / "body", layout.logs / "other_access.log", layout.home / "bin"}
    assert set(strangers(layout, ("uploads",), "app.db", taken)) == told


@needs_root
def test_what_is_missing_is_made_and_what_is_wrong_is_told(tmp_path: Path) -> None:
    """A second time there is nothing to do."""
    row = Owned(path=tmp_path / "data", group=NOBODY, mode=0o1770)
    make_missing((row,))
    found = row.path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, NOBODY.group, 0o1770)
    assert differences((row,)) == ()
    row.path.chmod(0o777)
    ((_, words),) = differences((row,))
    assert words == f"root:{_group_of_nobody()} 777"
    assert row.commands == (f"chown --no-dereference root:nobody {row.path}", f"chmod 1770 {row.path}")
    claim((row,))
    assert differences((row,)) == ()


def _group_of_nobody() -> str:
    import grp  # noqa: PLC0415

    return grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name


@needs_root
def test_only_what_we_made_is_handed_over(tmp_path: Path) -> None:
    """The folder stays ours; a file with a second name may be one of ours elsewhere, and stays too."""
    uploads, elsewhere = tmp_path / "uploads", tmp_path / "elsewhere"
    (uploads / "d").mkdir(parents=True)
    (uploads / "d" / "new").write_text("a")
    elsewhere.write_text("ours")
    (uploads / "twice").hardlink_to(elsewhere)
    (uploads / "link").symlink_to(elsewhere)
    share(uploads, NOBODY)
    assert uploads.stat().st_uid == 0
    assert ((uploads / "d").stat().st_uid, (uploads / "d" / "new").stat().st_uid) == (NOBODY.user, NOBODY.user)
    assert (uploads / "link").lstat().st_uid == NOBODY.user
    assert elsewhere.stat().st_uid == 0


@needs_root
def test_acting_as_an_account_reaches_what_the_account_reaches(tmp_path: Path) -> None:
    """And nothing else; afterwards we are ourselves again, also when it failed."""
    tmp_path.chmod(0o755)
    secret = tmp_path / "secret"
    secret.write_text("root's")
    os.setgroups([0])  # as a login of root has it
    for mode in (0o600, 0o640):
        secret.chmod(mode)
        with acting_as(NOBODY), pytest.raises(PermissionError):
            secret.read_text()
    with pytest.raises(ValueError, match="ours"), acting_as(NOBODY):
        raise ValueError("ours")
    assert secret.read_text() == "root's"


def test_a_file_that_an_app_wrote_is_read_and_a_link_is_not(tmp_path: Path) -> None:
    """Nor a folder, nor a pipe that nobody writes to."""
    (tmp_path / "answer").write_text("a")
    (tmp_path / "link").symlink_to("answer")
    os.mkfifo(tmp_path / "pipe")
    assert read_plain(tmp_path / "answer") == b"a"
    assert [read_plain(tmp_path / name) for name in ("link", "pipe", "none")] == [None, None, None]
