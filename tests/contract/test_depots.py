"""The contract of Depot, over a real S3 server, a real sshd and a real folder; and what each says of its trouble."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import workshop
from bulletproof.adapters.depots import open_depot, s3, trouble
from bulletproof.adapters.depots.s3_answers import SET_KEYS
from bulletproof.effects import partial
from bulletproof.effects.depot import Depot
from bulletproof.errors import BulletproofError, StepFailed, UsageError
from depot_places import MIB, FolderPlace, Place, S3Place, SftpPlace, wait_until
from free_ports import free_port
from remote_host import RemoteHost, know, remote_host
from s3_server import BUCKET, KEYS, S3Server
from slow_line import Line, line

pytestmark = [pytest.mark.xdist_group("depots"), pytest.mark.timeout(300)]

LARGE = 50 * MIB
NAMES = (
    "shop-2/12/database.db.age",
    "shop/12/manifest.json",
    "shop/9/my files ü (1).tar.zst.age",
    "Größe/-x/a+b=c,@d_e",
)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """An S3 server; its own temporary folder, since the path of its socket must be short."""
    with tempfile.TemporaryDirectory(prefix="bp-s3-", dir="/tmp") as folder:
        server = S3Server(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="module")
def s3_line(server: S3Server) -> Iterator[Line]:
    """The line to it."""
    with line(server.port) as made:
        yield made


@pytest.fixture(scope="module")
def host() -> Iterator[RemoteHost]:
    """A host with sshd, which our side's ssh knows."""
    with (
        tempfile.TemporaryDirectory(prefix="bp-far-", dir="/tmp") as folder,
        remote_host(Path(folder) / "m") as host,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in host.environment.items():
            patch.setenv(name, value)
        yield host


@pytest.fixture(scope="module")
def ssh_line(host: RemoteHost) -> Iterator[Line]:
    """The line to it, whose key is known there as well."""
    with line(host.port) as made:
        with host.known_hosts.open("a") as known:
            known.write(host.known_hosts.read_text().replace(f":{host.port} ", f":{made.port} "))
        yield made


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tries as ever, sooner one after the other."""
    monkeypatch.setattr(trouble, "PAUSES", (0.05, 0.1))
    backoff = {"init_backoff": timedelta(seconds=0.05), "max_backoff": timedelta(seconds=0.1), "base": 2}
    monkeypatch.setattr(s3, "_RETRIES", {**s3._RETRIES, "backoff": backoff})


@pytest.fixture(params=["s3", "sftp", "folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Give each place, with nothing in it."""
    place: Place
    if request.param == "s3":
        place = S3Place(request.getfixturevalue("server"), request.getfixturevalue("s3_line"))
        place.line.calm()
    elif request.param == "sftp":
        place = SftpPlace(request.getfixturevalue("host"), request.getfixturevalue("ssh_line"))
        place.line.calm()
        place.folder.mkdir(exist_ok=True)
    else:
        place = FolderPlace(tmp_path / "off site ü", monkeypatch)
        place.folder.mkdir()
    for name in place.depot.names(""):
        place.depot.remove(name)
    yield place
    place.mend() if isinstance(place, FolderPlace) else place.line.calm()


def written(folder: Path, size: int, name: str = "database.db.age") -> Path:
    """A file of random bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_bytes(os.urandom(size))
    return file


def failure(action: Callable[[], Any]) -> BulletproofError:
    """The error of an action that must fail, without a secret anywhere in it."""
    with pytest.raises(BulletproofError) as raised:
        action()
    error = raised.value
    told = " ".join((str(error), error.hint, *error.context))
    assert not [secret for secret in KEYS.values() if secret in told]
    return error


def words(action: Callable[[], Any]) -> tuple[str, str]:
    """What a person reads of a failure off site, and the command that is named next."""
    error = failure(action)
    assert isinstance(error, StepFailed)
    assert error.reference == "offsite-failed"
    assert error.hint
    return error.message, error.hint


class TestFiles:
    """What was put is what is got."""

    @pytest.mark.parametrize("size", [0, 1, 8 * MIB, LARGE])
    def test_a_file_comes_back_as_it_was(self, place: Place, tmp_path: Path, size: int) -> None:
        """Of any size, private, with nothing else left here."""
        file, back = written(tmp_path / "here", size), tmp_path / "back" / "file.age"
        back.parent.mkdir()
        place.depot.put(file, "shop/12/database.db.age")
        place.depot.get("shop/12/database.db.age", back)

        assert back.read_bytes() == file.read_bytes()
        assert back.stat().st_mode & 0o777 == 0o600
        assert [path.name for path in back.parent.iterdir()] == ["file.age"]
        assert [path.name for path in file.parent.iterdir()] == [file.name]
        if isinstance(place, FolderPlace):
            there = place.folder / "shop/12"
            assert [path.stat().st_mode & 0o777 for path in (there, there / "database.db.age")] == [0o700, 0o600]

    def test_names(self, place: Place, tmp_path: Path) -> None:
        """With blanks and umlauts, sorted, and only those below the folder that is asked for."""
        file, depot = written(tmp_path / "here", 10), place.depot
        for name in NAMES:
            depot.put(file, name)

        assert depot.names("") == tuple(sorted(NAMES))
        assert depot.names("shop") == depot.names("shop/") == (NAMES[1], NAMES[2])
        assert depot.names("shop/9") == (NAMES[2],)
        assert depot.names("Größe") == (NAMES[3],)
        assert depot.names("sho") == depot.names("nothing/there") == ()
        for name in NAMES:
            depot.get(name, tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == file.read_bytes()

    def test_a_file_of_that_name_is_replaced(self, place: Place, tmp_path: Path) -> None:
        """The second file is there, whole; and a smaller one is not the end of a larger."""
        depot = place.depot
        for size in (9 * MIB, 100):
            file = written(tmp_path / "here", size)
            depot.put(file, "shop/1/a")
            depot.get("shop/1/a", tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == file.read_bytes()
        assert depot.names("") == ("shop/1/a",)

    def test_remove(self, place: Place, tmp_path: Path) -> None:
        """What is removed is gone, once or twice; what lies beside it stays."""
        file, depot = written(tmp_path / "here", 10), place.depot
        for name in ("shop/1/a", "shop/1/b", "shop/2/c"):
            depot.put(file, name)
        for name in ("shop/1/a", "shop/1/a", "shop/2/c", "never/was/there"):
            depot.remove(name)

        assert depot.names("") == ("shop/1/b",)
        assert words(lambda: depot.get("shop/1/a", tmp_path / "back"))[0].endswith("there is no such file")
        assert not (tmp_path / "back").exists()

    def test_empty_folders_go_with_their_last_file(self, place: Place, tmp_path: Path) -> None:
        """Else there was one for each backup that ever was."""
        if isinstance(place, S3Place):
            pytest.skip("a bucket has no folders")
        assert isinstance(place, SftpPlace | FolderPlace)
        place.depot.put(written(tmp_path / "here", 10), "shop/1/a")
        place.depot.remove("shop/1/a")

        assert not list(place.folder.iterdir())

    @pytest.mark.parametrize(
        "name", ["", "/a", "a//b", "a/../b", "a/.", "a\nb", 'a"b', "a*", "a\\b", "x" * 201, ".bp-a", "a /b"]
    )
    def test_odd_names(self, place: Place, tmp_path: Path, name: str) -> None:
        """No depot takes a name that could be read as something else on the way."""
        file, depot = written(tmp_path / "here", 10), place.depot
        for action in (lambda: depot.put(file, name), lambda: depot.get(name, file), lambda: depot.remove(name)):
            error = failure(action)
            assert isinstance(error, UsageError)
            assert error.reference == "offsite-name-odd"
        assert depot.names("") == ()

    def test_a_file_that_is_not_here(self, place: Place, tmp_path: Path) -> None:
        """Nothing is put, and it is said which file is missing."""
        message, _ = words(lambda: place.depot.put(tmp_path / "missing", "shop/1/a"))

        assert f"{tmp_path}/missing" in message
        assert "No such file" in message
        assert place.depot.names("") == ()


class TestBrokenOff:
    """Whole or not at all, and gone on with."""

    def test_put(self, place: Place, tmp_path: Path) -> None:
        """Whoever takes a file is killed in the middle: it is not there, and it is after the same call again."""
        file, name = written(tmp_path / "here", LARGE), "shop/12/database.db.age"
        place.break_off_put(file, name)
        place.mend()
        depot = place.depot
        assert depot.names("") == ()

        with place.counted() as passed:
            depot.put(file, name)
            if place.can_go_on_putting:
                assert passed() < LARGE - 8 * MIB
        assert depot.names("") == (name,)
        depot.get(name, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == file.read_bytes()

    def test_put_of_something_else(self, place: Place, tmp_path: Path) -> None:
        """What was sent of one file is no part of the next of that name, and does not stay."""
        name = "shop/12/database.db.age"
        place.break_off_put(written(tmp_path / "here", LARGE), name)
        place.mend()
        other = written(tmp_path / "here", 30 * MIB)
        place.depot.put(other, name)

        place.depot.get(name, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == other.read_bytes()
        if isinstance(place, SftpPlace | FolderPlace):
            assert [path.name for path in (place.folder / "shop/12").iterdir()] == ["database.db.age"]

    def test_get_is_gone_on_with(self, place: Place, tmp_path: Path) -> None:
        """The place is gone in the middle: what was here stays, and the same call again fetches what is missing."""
        file, name, back = written(tmp_path / "here", LARGE), "shop/12/database.db.age", tmp_path / "back" / "file"
        back.parent.mkdir()
        back.write_text("older")
        place.depot.put(file, name)
        place.break_off_get(name, back)
        assert back.read_text() == "older"

        place.mend()
        with place.counted() as passed:
            place.depot.get(name, back)
            assert passed() < LARGE - 10 * MIB
        assert back.read_bytes() == file.read_bytes()
        assert [path.name for path in back.parent.iterdir()] == ["file"]

    def test_get_of_another_version(self, place: Place, tmp_path: Path) -> None:
        """What has come of one file is no part of the next of that name, and does not stay."""
        name, back = "shop/12/database.db.age", tmp_path / "back" / "file"
        back.parent.mkdir()
        place.depot.put(written(tmp_path / "here", LARGE), name)
        place.break_off_get(name, back)
        place.mend()
        other = written(tmp_path / "here", LARGE + 1)
        place.depot.put(other, name)
        place.depot.get(name, back)

        assert back.read_bytes() == other.read_bytes()
        assert [path.name for path in back.parent.iterdir()] == ["file"]

    def test_a_connection_that_is_cut_once(self, place: Place, tmp_path: Path) -> None:
        """A person never hears of it, in either direction."""
        file, name = written(tmp_path / "here", LARGE), "shop/12/database.db.age"
        if not isinstance(place, FolderPlace):
            with place.cut_once(20 * MIB):
                place.depot.put(file, name)
        place.depot.put(file, name)
        with place.cut_once(20 * MIB):
            place.depot.get(name, tmp_path / "back")

        assert (tmp_path / "back").read_bytes() == file.read_bytes()


class TestWords:
    """What a person reads of trouble, and types next."""

    def test_called(self, place: Place) -> None:
        """The place has a name for people, and no secret is in it, nor in what a debugger shows."""
        depot = place.depot
        if isinstance(place, S3Place):
            expected = f"s3://{BUCKET}/off site/ü at 127.0.0.1:{place.line.port}"
        elif isinstance(place, FolderPlace):
            expected = str(place.folder)
        else:
            expected = place.url()

        assert depot.called == expected
        assert not [secret for secret in KEYS.values() if secret in f"{depot!r} {vars(place)}"]

    def test_nobody_is_there(self, place: Place, tmp_path: Path) -> None:
        """A host that does not listen, and a disk that is not mounted."""
        port = free_port()
        if isinstance(place, FolderPlace):
            depot: Depot = open_depot(f"file://{tmp_path}/unmounted", {})
            why, hint = f"the folder {tmp_path}/unmounted is not there; is its disk mounted?", "findmnt"
        elif isinstance(place, S3Place):
            depot = open_depot(place.url(), {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"})
            why, hint = "it cannot be reached: Connection refused", f"curl -sSI http://127.0.0.1:{port}"
        else:
            depot = open_depot(f"sftp://127.0.0.1:{port}/folder", {})
            why, hint = f"127.0.0.1:{port} cannot be reached", f"ssh -p {port} 127.0.0.1"
        file = written(tmp_path / "here", 10)

        assert words(lambda: depot.put(file, "a/b")) == (f"`a/b` could not be put into {depot.called}: {why}", hint)
        assert words(lambda: depot.get("a/b", file)) == (f"`a/b` could not be got from {depot.called}: {why}", hint)
        assert words(lambda: depot.names("")) == (f"{depot.called} could not be listed: {why}", hint)
        assert words(lambda: depot.remove("a/b")) == (f"`a/b` could not be removed from {depot.called}: {why}", hint)


class TestS3:
    """What only a bucket can have."""

    def test_wrong_key(self, server: S3Server, tmp_path: Path) -> None:
        """It is said that the key was refused, and how to set another."""
        place = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"}
        file = written(tmp_path, 10)
        for name, code in (
            ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"),
            ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"),
        ):
            depot = open_depot(f"s3://{BUCKET}", {**place, name: "ANOTHER"})
            for action in (lambda: depot.put(file, "a"), lambda: depot.get("a", file), lambda: depot.names("")):  # noqa: B023
                message, hint = words(action)
                assert f"the key was refused: {code}: " in message
                assert hint == SET_KEYS

    def test_no_bucket(self, server: S3Server, tmp_path: Path) -> None:
        """Nobody makes a bucket unasked; this server calls it forbidden when something is put there."""
        endpoint = f"http://127.0.0.1:{server.port}"
        depot = open_depot("s3://elsewhere", {**KEYS, "AWS_ENDPOINT_URL": endpoint})
        for action in (lambda: depot.get("a", tmp_path / "a"), lambda: depot.names(""), lambda: depot.remove("a")):
            message, hint = words(action)
            assert message.endswith(": there is no bucket elsewhere")
            assert hint == f"aws s3 mb s3://elsewhere --endpoint-url {endpoint}"
        message, hint = words(lambda: depot.put(written(tmp_path, 10), "a"))
        assert message.endswith(
            "the key may not do this, or there is no bucket elsewhere: AccessDenied: Access Denied."
        )
        assert hint == f"aws s3 ls s3://elsewhere --endpoint-url {endpoint}"

    def test_full_bucket(self, server: S3Server, tmp_path: Path) -> None:
        """This server has no word for that of its own, as many have none."""
        server.make_bucket("full")
        depot = open_depot("s3://full", {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"})
        depot.put(written(tmp_path, 3 * MIB), "first")
        server.fill("full")
        message, hint = words(lambda: depot.put(written(tmp_path, 3 * MIB), "second"))

        assert "`second` could not be put into s3://full at 127.0.0.1:" in message
        assert "it answered InternalError: " in message
        assert message.endswith("one that is full can say this too")
        assert hint.startswith("aws s3 ls s3://full ")
        assert depot.names("") == ("first",)

    def test_a_person_who_interrupts(self, server: S3Server, tmp_path: Path) -> None:
        """A put ends at once, as interrupted, and the file is not there."""
        program = (
            "import pathlib, sys\nfrom bulletproof.adapters.depots import open_depot\n"
            "keys = dict(zip(('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_ENDPOINT_URL'), sys.argv[2:]))\n"
            "open_depot('s3://backups/alone', keys).put(pathlib.Path(sys.argv[1]), 'interrupted')"
        )
        with line(server.port) as own_line:  # on which nothing passes but what this put sends
            place = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{own_line.port}"}
            own_line.bytes_per_second = MIB
            argv = [sys.executable, "-c", program, str(written(tmp_path, LARGE)), *place.values()]
            with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as child:
                try:
                    wait_until(lambda: own_line.passed > MIB)
                    child.send_signal(signal.SIGINT)
                    began = time.monotonic()
                    _, said = child.communicate(timeout=30)
                finally:
                    child.kill()

            assert time.monotonic() - began < 20  # all of it would take a minute
            assert said.splitlines()[-1] == "KeyboardInterrupt"
            own_line.calm()
            assert "interrupted" not in open_depot(f"s3://{BUCKET}/alone", place).names("")

    def test_the_environment_plays_no_part(
        self, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Keys, places and switches of another account are neither used nor in the way."""
        ambient = {
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
            "AWS_SESSION_TOKEN": "other",
            "AWS_SKIP_SIGNATURE": "true",
            "AWS_REGION": "mars-1",
            "AWS_BUCKET": "other",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
            "AWS_ALLOW_HTTP": "false",
            "AWS_ACCESS_KEY_ID": "other",
            "AWS_SECRET_ACCESS_KEY": "other",
        }
        for name, value in ambient.items():
            monkeypatch.setenv(name, value)
        depot = open_depot(f"s3://{BUCKET}/alone", {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"})
        depot.put(written(tmp_path, 10), "a")
        assert depot.names("") == ("a",)

        for name, value in KEYS.items():
            monkeypatch.setenv(name, value)
        error = failure(lambda: open_depot(f"s3://{BUCKET}", {}))
        assert isinstance(error, UsageError)
        assert error.reference == "offsite-keys-missing"
        assert error.message == f"s3://{BUCKET} needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


class TestSftp:
    """What only a host can have."""

    def test_no_folder(self, host: RemoteHost, tmp_path: Path) -> None:
        """Nobody makes the folder unasked: a wrong address would have one too."""
        depot = open_depot(f"sftp://far{host.folder}/missing", {})
        for action in (
            lambda: depot.put(written(tmp_path, 10), "a"),
            lambda: depot.names(""),
            lambda: depot.remove("a"),
        ):
            message, hint = words(action)
            assert message.endswith(f": the folder {host.folder}/missing is not there")
            assert hint == "sftp far"

    def test_a_put_that_was_killed_just_before_its_end(self, host: RemoteHost, ssh_line: Line, tmp_path: Path) -> None:
        """Only the name is missing, so nothing is sent again."""
        file, folder = written(tmp_path, 9 * MIB), host.folder / "nearly"
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        (folder / "shop").mkdir(parents=True)
        shutil.copy(file, folder / "shop" / partial.partial_name("shop/a", digest))
        ssh_line.calm()
        open_depot(f"sftp://127.0.0.1:{ssh_line.port}{folder}", {}).put(file, "shop/a")

        assert ssh_line.passed < MIB
        assert [path.name for path in (folder / "shop").iterdir()] == ["a"]
        assert (folder / "shop/a").read_bytes() == file.read_bytes()

    def test_below_the_home_folder(self, host: RemoteHost, tmp_path: Path) -> None:
        """`/~/` is the home folder, as in sftp's own addresses."""
        (host.home / "kept").mkdir()
        depot = open_depot("sftp://far/~/kept", {})
        depot.put(written(tmp_path, 10), "shop/1/a")

        assert depot.names("") == ("shop/1/a",)
        assert (host.home / "kept/shop/1/a").stat().st_size == 10

    def test_wrong_key_of_ours(self, host: RemoteHost, tmp_path: Path) -> None:
        """It is said once, and not tried again."""
        known = host.folder / "authorized_keys"
        before = known.read_text()
        host.forget_connections()
        known.write_text((host.folder / "other_key.pub").read_text())
        try:
            message, hint = words(lambda: open_depot(f"sftp://far{host.folder}", {}).put(written(tmp_path, 10), "a"))
        finally:
            known.write_text(before)

        assert message.endswith(": far does not let us in")
        assert hint == "ssh far"

    def test_wrong_key_of_the_host(self, host: RemoteHost, tmp_path: Path) -> None:
        """A host with another key than the known one is given nothing."""
        before = host.known_hosts.read_text()
        host.forget_connections()
        know(host, "other_key")
        try:
            message, hint = words(lambda: open_depot(f"sftp://far{host.folder}", {}).put(written(tmp_path, 10), "a"))
        finally:
            host.known_hosts.write_text(before)

        assert message.endswith(": far shows another key than the one that is known for it")
        assert hint.startswith("find out why")

    def test_what_may_not_be_read_or_written(self, host: RemoteHost, tmp_path: Path) -> None:
        """A file stands where a folder has to be: the words of sftp are passed on."""
        folder = host.folder / "in the way"
        folder.mkdir()
        (folder / "shop").write_text("no folder")
        message, hint = words(lambda: open_depot(f"sftp://far{folder}", {}).put(written(tmp_path, 10), "shop/1/a"))

        assert message.startswith(f"`shop/1/a` could not be put into sftp://far{folder}: ")
        assert hint == "sftp far"


@pytest.mark.root
class TestFullDisk:
    """No room there, and no room here."""

    @pytest.mark.parametrize("kind", ["sftp", "folder"])
    def test_there(self, request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
        """Nothing of the file is left under its name, the next one fits, and the words tell how to look."""
        file = written(tmp_path, 12 * MIB)
        with workshop.small_disk(mebibytes=8) as disk:
            (disk / "there").mkdir()
            if kind == "sftp":
                request.getfixturevalue("host")
                depot = open_depot(f"sftp://far{disk}/there", {})
                why, hint = "its disk is full: ", f'echo df -h "{disk}/there" | sftp far'
            else:
                depot = open_depot(f"file://{disk}/there", {})
                why, hint = f"the disk of {disk}/there/shop/1 is full", f"df -h {disk}/there/shop/1"
            message, told = words(lambda: depot.put(file, "shop/1/a"))

            assert f"could not be put into {depot.called}: {why}" in message
            assert told == hint
            assert depot.names("") == ()
            depot.put(written(tmp_path, 6 * MIB), "shop/2/a")
            assert depot.names("") == ("shop/2/a",)

    def test_here(self, place: Place, tmp_path: Path) -> None:
        """What was there before stays, and nothing is left that fills the disk for others."""
        file = written(tmp_path, 12 * MIB)
        place.depot.put(file, "shop/1/a")
        with workshop.small_disk(mebibytes=8) as disk:
            (disk / "back").write_text("older")
            message, hint = words(lambda: place.depot.get("shop/1/a", disk / "back"))

            assert "No space left on device" in message or "is full" in message
            assert hint == f"df -h {disk}"
            assert (disk / "back").read_text() == "older"
            assert [path.name for path in disk.iterdir()] == ["back"]
