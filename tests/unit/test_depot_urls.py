"""Where a depot is, what a name in it can be, and what the answers of S3 and sftp mean."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.adapters.depots import open_depot
from bulletproof.adapters.depots.s3_answers import trouble_of
from bulletproof.adapters.depots.trouble import Trouble, tried
from bulletproof.domain.address import Address
from bulletproof.domain.depot import DepotUrl, check_name, check_prefix, parents, read_depot_url
from bulletproof.effects import partial, sftp
from bulletproof.errors import Refused, StepFailed, UsageError

KEYS = {"AWS_ACCESS_KEY_ID": "AKME", "AWS_SECRET_ACCESS_KEY": "very/secret"}


@pytest.mark.parametrize(
    ("text", "kind", "host", "folder"),
    [
        ("s3://backups", "s3", "backups", ""),
        ("s3://backups/", "s3", "backups", ""),
        ("s3://backups/shops/one/", "s3", "backups", "shops/one"),
        ("sftp://example.org/srv/backups", "sftp", "example.org", "/srv/backups"),
        ("sftp://joe@example.org:2222/srv/backups/", "sftp", "joe@example.org:2222", "/srv/backups"),
        ("sftp://joe@[::1]:22/a", "sftp", "joe@[::1]:22", "/a"),
        ("sftp://nas", "sftp", "nas", "/"),
        ("sftp://nas/~", "sftp", "nas", "."),
        ("sftp://nas/~/", "sftp", "nas", "."),
        ("sftp://nas/~/my backups", "sftp", "nas", "my backups"),
        ("sftp://nas/~joe", "sftp", "nas", "/~joe"),
        ("file:///mnt/disk/backups/", "file", "", "/mnt/disk/backups"),
        ("file:///mnt/größe 2", "file", "", "/mnt/größe 2"),
    ],
)
def test_an_address_is_understood(text: str, kind: str, host: str, folder: str) -> None:
    """Of each of the three kinds."""
    assert read_depot_url(text) == DepotUrl(kind=kind, host=host, folder=folder)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is none of s3://"),
        ("/mnt/disk", "is none of s3://"),
        ("ftp://example.org/a", "is none of s3://"),
        ("S3://backups", "is none of s3://"),
        ("s3://", "names no bucket"),
        ("s3://a", "names no bucket"),
        ("s3:///backups", "names no bucket"),
        ("s3://-x/a", "names no bucket"),
        ("sftp:///srv", "names no host"),
        ("sftp://-oProxyCommand=x/srv", "names no host"),
        ("sftp://joe@/srv", "names no host"),
        ("file://server/srv", "names a host"),
        ("file:///srv/../etc", "has a part that is empty, is . or .."),
        ("sftp://nas/a//b", "has a part that is empty, is . or .."),
        ("sftp://nas/a%20b", "has '%' in it"),
        ('sftp://nas/a"b', "has '\"' in it"),
        ("sftp://nas/a\nrm b", "is none of s3://"),
        ("sftp://nas/a\tb", "in it, which is taken for something else"),
        (f"file:///{'x' * 201}", "is longer than 500 bytes, or than 200 between two slashes"),
    ],
)
def test_an_odd_address_is_refused_in_words(text: str, why: str) -> None:
    """It is said what is wrong with it, and how it is written."""
    with pytest.raises(UsageError) as raised:
        read_depot_url(text)
    assert raised.value.reference == "offsite-url-odd"
    assert why in raised.value.message
    assert raised.value.message.isprintable()
    assert raised.value.hint == "write it as s3://BUCKET/PREFIX, sftp://USER@HOST:PORT/FOLDER or file:///FOLDER"


@pytest.mark.parametrize(
    "text",
    [
        "sftp://joe:hunter2@example.org/srv",
        "s3://AKME:hunter2@backups/srv",
        "s3://hunter2@backups",
        "ftp://joe:hunter2@example.org",
        "sftp://joe:hun/hunter2@example.org/srv",
        "sftp://joe:hunter2@example.org/a%b@c",
    ],
)
def test_a_password_in_an_address_is_not_repeated(text: str) -> None:
    """An error goes into logs."""
    with pytest.raises(UsageError) as raised:
        read_depot_url(text)
    assert "hunter2" not in f"{raised.value} {raised.value.hint}"


def test_a_port_that_cannot_be() -> None:
    """As for any other host."""
    with pytest.raises(UsageError, match="host-malformed"):
        open_depot("sftp://nas:65536/srv", {})


@pytest.mark.parametrize("endpoint", ["ftp://a", "a.example.org", "https://joe:hunter2@a.example.org", "https://a/b/c"])
def test_an_odd_endpoint(endpoint: str) -> None:
    """It is refused, and not repeated, since it may have a password in it."""
    with pytest.raises(UsageError) as raised:
        open_depot("s3://backups", {**KEYS, "AWS_ENDPOINT_URL": endpoint})
    assert raised.value.reference == "offsite-url-odd"
    assert "hunter2" not in str(raised.value)


def test_amazons_own_endpoint_is_that_of_the_region() -> None:
    """Without an endpoint it is Amazon's."""
    assert open_depot("s3://backups/a", KEYS).called == "s3://backups/a at s3.us-east-1.amazonaws.com"
    there = open_depot("s3://backups", {**KEYS, "AWS_REGION": "eu-central-1"})
    assert there.called == "s3://backups at s3.eu-central-1.amazonaws.com"


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a bucket needs it; who has not installed it is told how to."""
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    open_depot("file:///srv", {})
    open_depot("sftp://nas/srv", {})
    with pytest.raises(Refused) as raised:
        open_depot("s3://backups", KEYS)
    assert raised.value.reference == "offsite-not-installed"
    assert raised.value.hint == "pip install 'bulletproof[offsite]'"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_a_name_that_is_taken_is_safe_in_a_batch(name: str) -> None:
    """Whatever it is, it cannot end its quotes or its line, be a pattern, or lead out of its folder."""
    try:
        check_name(name)
    except UsageError as error:
        assert error.message.isprintable()  # noqa: PT017
        return
    assert name.isprintable()
    assert not set(name) & set("\"'\\*?[]%#`")
    assert all(part not in {"", ".", ".."} and not part.startswith(".bp-") for part in name.split("/"))
    assert sftp.quoted(name) == f'"./{name}"'


def test_prefixes_and_parents() -> None:
    """A slash at the end of a folder means nothing; a name lies in all its folders."""
    assert [check_prefix(text) for text in ("", "/", "shop", "shop/", "shop/12/")] == [
        "",
        "",
        "shop",
        "shop",
        "shop/12",
    ]
    assert parents("shop/12/a") == ("shop", "shop/12")
    assert parents("a") == ()


def answer(status: str, code: str = "", message: str = "said <it>") -> str:
    """What obstore tells of an answer, as seen from a real server; the codes are the server's."""
    body = f"<?xml?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>" if code else ""
    return (
        f"Generic S3 error: Error performing PUT http://h/b/x in 2ms - Server returned non-2xx status code: {status}: "
        f'{body}\n\nDebug source:\nGeneric {{\n inner: Status {{ status: {status[:3]} secret "very/secret" }}'
    )


NO_CONNECTION = (
    "Generic S3 error: Error performing PUT http://h/b/x in 2ms - HTTP error: error sending request\n\n"
    'Debug source:\n kind: Connect, ConnectError("dns error", Custom { error: "failed to lookup very/secret" })'
)
BROKEN = "Generic S3 error: HTTP error: request or response body error\n\nDebug source:\n kind: Interrupted"


@pytest.mark.parametrize(
    ("said", "why", "hint", "may_pass"),
    [
        (answer("404 Not Found", "NoSuchBucket"), "there is no bucket b", "aws s3 mb s3://b", False),
        (answer("404 Not Found", "NoSuchKey"), "there is no such file", "aws s3 ls --recursive s3://b", False),
        (answer("404 Not Found"), "there is no such file", "aws s3 ls --recursive s3://b", False),
        (answer("403 Forbidden", "ExpiredToken", "a &#34;b&#34;"), 'ExpiredToken: a "b"', "export AWS", False),
        (answer("403 Forbidden"), "may not do this, or there is no bucket b: 403 Forbidden", "aws s3 ls s3://b", False),
        (answer("507 Insufficient Storage", "XMinioStorageFull"), "no room left: XMinio", "aws s3 ls", False),
        (answer("403 Forbidden", "QuotaExceeded", "m"), "there is no room left: QuotaExceeded: m", "aws s3 ls", False),
        (answer("507 Insufficient Storage"), "there is no room left: 507 Insufficient Storage", "aws s3 ls", False),
        (answer("503 Slow", "SlowDown", "m"), "answered SlowDown: m; one that is full", "aws s3 ls", False),
        (answer("412 Precondition Failed", "PreconditionFailed"), "replaced while it was read", "aws s3 ls", True),
        (NO_CONNECTION, "it cannot be reached: failed to lookup ...", "curl -sSI https://h", False),
        (BROKEN, "the connection broke: ", "curl -sSI https://h", True),
    ],
)  # fmt: skip
def test_answers_of_s3(said: str, why: str, hint: str, *, may_pass: bool) -> None:
    """What each means for a person, whether a whole get is begun again for it, and no secret in it."""
    found = trouble_of(said, bucket="b", endpoint="https://h", hidden=("very/secret",))

    assert why in found.why
    assert found.hint.startswith(hint)
    assert found.may_pass == may_pass
    assert "very/secret" not in found.why
    assert "\n" not in found.why


class TestTried:
    """Three tries, and no more than may help."""

    @pytest.fixture(autouse=True)
    def slept(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """What was slept, without sleeping."""
        slept: list[float] = []
        monkeypatch.setattr(time, "sleep", slept.append)
        return slept

    @pytest.mark.parametrize(("failures", "pauses"), [(0, []), (1, [1.0]), (2, [1.0, 4.0])])
    def test_what_goes_well_in_the_end(self, slept: list[float], failures: int, pauses: list[float]) -> None:
        """A person never hears of it."""
        left = iter(range(failures))

        def action() -> str:
            if next(left, None) is not None:
                raise Trouble("not now", may_pass=True)
            return "done"

        assert tried("it failed", action) == "done"
        assert slept == pauses

    @pytest.mark.parametrize(("may_pass", "tries"), [(True, 3), (False, 1)])
    def test_what_does_not(self, *, may_pass: bool, tries: int) -> None:
        """What happened, why, and what to type; of what cannot pass there is one try."""
        done = []

        def action() -> None:
            done.append(1)
            raise Trouble("it is full", hint="df -h /a", context=("said",), may_pass=may_pass)

        with pytest.raises(StepFailed) as raised:
            tried("it failed", action)
        error = raised.value
        assert (error.reference, error.message, error.hint, error.context) == (
            "offsite-failed",
            "it failed: it is full",
            "df -h /a",
            ("said",),
        )
        assert len(done) == tries


LISTING = """\
sftp> ls -lna "./shop"
drwxr-xr-x    ? 0        0            4096 Nov 27 22:42 ./shop/.
drwxr-xr-x    ? 0        0            4096 Nov 27 22:42 ./shop/..
lrwxrwxrwx    1 domain users joe         4 Nov  7  2024 ./shop/link
-rw-r--r--    ? domain users joe      1234 Nov 27 22:42 ./shop/Gr\\303\\266\\303\\237e 1 Jan 2 10:00 x
-rw-r--r--.   1 0        0               0 Feb  3  2024 ./shop/empty
drwxr-xr-x    ? 0        0            4096 Nov 27 22:42 ./shop/12
Remote working directory: /srv
        Size         Used        Avail       (root)    %Capacity
   264212084     23860456     82530456    240351628           9%
"""


def test_a_listing_of_sftp() -> None:
    """Files, folders and links with their sizes, whatever groups and names are like."""
    found = [(entry.kind, entry.path, entry.size) for entry in sftp._entries(LISTING)]

    assert found == [
        ("l", "shop/link", 4),
        ("-", "shop/Größe 1 Jan 2 10:00 x", 1234),
        ("-", "shop/empty", 0),
        ("d", "shop/12", 4096),
    ]


def test_how_sftp_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is taken unseen, nobody is asked for a passphrase, and months and letters are not the person's."""
    program = tmp_path / "sftp"
    program.write_text('#!/bin/sh\nprintf \'%s\\n\' "$LC_ALL" "$@" >"$OUT/said"\ncat >"$OUT/batch"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    host = sftp.SftpHost(Address(called="nas", host="::1", user="joe", port=2222))
    host.carry_out("/srv/ü", ["-rm a"], here=tmp_path)

    locale, *words = (tmp_path / "said").read_text().splitlines()
    assert locale == "C"
    assert words[:2] == ["-S", "ssh"]
    assert words[-7:] == ["-o", "User=joe", "-P", "2222", "-b", "-", "[::1]"]
    assert "StrictHostKeyChecking=yes" in words
    assert (tmp_path / "batch").read_text() == 'cd "/srv/ü"\npwd\n-rm a\n'
    assert host.typed() == "sftp -P 2222 joe@[::1]"


def test_without_sftp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said what is not installed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StepFailed, match="the program sftp is not installed here"):
        open_depot("sftp://nas/srv", {}).names("")


class TestPartial:
    """What has come of a transfer."""

    def test_it_is_gone_on_with_for_its_version_alone(self, tmp_path: Path) -> None:
        """What is here is not read again; what is here of another version is thrown away."""
        asked: list[tuple[int, int]] = []

        def read(offset: int, length: int) -> bytes:
            asked.append((offset, length))
            return b"0123456789"[offset : offset + min(length, 4)]

        file = tmp_path / "file"
        (tmp_path / partial.partial_name("file", "one")).write_bytes(b"01234")
        other = tmp_path / partial.partial_name("other", "one")
        other.write_bytes(b"of another file")
        partial.fetch(file, "one", 10, read)
        assert file.read_bytes() == b"0123456789"
        assert asked == [(5, 5), (9, 1)]

        (tmp_path / partial.partial_name("file", "one")).write_bytes(b"x")
        partial.fetch(file, "two", 10, read)
        assert file.read_bytes() == b"0123456789"
        assert asked[2] == (0, 10)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["file", other.name])

    def test_what_is_doubted_is_cut_off(self, tmp_path: Path) -> None:
        """The end of what a killed program has written may have holes."""
        (tmp_path / partial.partial_name("file", "one")).write_bytes(b"0123456789")

        assert partial.open_partial(tmp_path / "file", "one", doubted_bytes=4).read_bytes() == b"012345"
        assert partial.open_partial(tmp_path / "file", "one", doubted_bytes=40).read_bytes() == b""

    def test_a_file_that_ends_too_early(self, tmp_path: Path) -> None:
        """It is no file, and nobody waits for the rest for ever."""
        with pytest.raises(EOFError, match="nothing came after 3 of 10 bytes"):
            partial.fetch(tmp_path / "file", "one", 10, lambda offset, _: b"012"[offset:])
        assert not (tmp_path / "file").exists()
