"""Keys that may do little: entries of authorized_keys with what is forced upon them, and nothing beside them lost."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bulletproof.cli.main import bulletproof
from bulletproof.domain.errand import Right
from bulletproof.domain.keys import Key, key_of, keys_of, line_of, read_public, read_rights, with_key, without_key
from bulletproof.errors import BulletproofError, Refused, UsageError

_ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHV4YW1wbGUtZXhhbXBsZS1leGFtcGxlLWV4YW1w"
_OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG90aGVyLW90aGVyLW90aGVyLW90aGVyLW90aGVy"
_ENGINE = ("/home/deploy/.local/share/bulletproof/engine/current/bin/bulletproof",)


def _key(name: str = "ci", public: str = _ED25519, *rights: Right, root: str = "") -> Key:
    return Key(
        name=name,
        rights=frozenset(rights or {Right.DEPLOY}),
        app="shop",
        root=root,
        public=read_public(f"{public} x@y"),
    )


def test_an_entry_forces_a_command_and_takes_everything_else_away() -> None:
    """No pty, no forwarding: `restrict`; and what it may do stands in the command, by name."""
    line = line_of(_key("ci", _ED25519, Right.STATUS, Right.DEPLOY), _ENGINE)

    assert line == (
        f'command="{_ENGINE[0]} serve --key ci --app shop --can deploy,status",restrict {_ED25519} bulletproof:ci'
    )
    assert key_of(line) == _key("ci", _ED25519, Right.STATUS, Right.DEPLOY)


def test_a_root_with_a_blank_is_one_word_for_the_shell() -> None:
    """And is found again."""
    key = _key(root="/srv/my apps")
    line = line_of(key, _ENGINE)

    assert "--root '/srv/my apps' serve" in line
    assert key_of(line) == key
    with pytest.raises(Refused, match="quote or a backslash"):
        line_of(_key(root='/srv/"x'), _ENGINE)


@pytest.mark.parametrize("before", ["", "# mine\n", f"{_OTHER} ada@laptop\n", f"{_OTHER} ada@laptop", "\n\n# x\r\n"])
def test_other_lines_are_as_they_were(before: str) -> None:
    """Added and revoked, the file is byte for byte what it was, but for a line end at its end."""
    with_it = with_key(before, _key(), _ENGINE)

    assert with_it.startswith(before)
    assert with_key(with_it, _key(), _ENGINE) == with_it
    assert without_key(with_it, "ci") == before + ("" if not before or before.endswith("\n") else "\n")


def test_a_key_that_is_added_again_has_the_new_rights() -> None:
    """In the place where it stood, once."""
    text = with_key(with_key("# a\n", _key(), _ENGINE) + "# b\n", _key("ci", _ED25519, Right.PLAN), _ENGINE)

    assert [line[:1] for line in text.splitlines()] == ["#", "c", "#"]
    assert [key.rights for key in keys_of(text)] == [{Right.PLAN}]


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (f"{_ED25519} ada@laptop\n", "with no restriction"),
        (f'from="10.0.0.1" {_ED25519}\n', "with no restriction"),
        (f'command="/bin/date",restrict {_ED25519}\n', "options of another's"),
        (line_of(_key("other"), _ENGINE) + "\n", "named other"),
        (line_of(_key("ci", _OTHER), _ENGINE) + "\n", "another key named ci"),
    ],
    ids=["unrestricted", "from", "another-command", "another-name", "another-key"],
)
def test_a_key_that_would_do_more_than_it_says_is_refused(before: str, words: str) -> None:
    """Sshd takes the first entry that it finds for a key."""
    with pytest.raises(Refused, match=words):
        with_key(before, _key(), _ENGINE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 not-base64!",
        f"ssh-rsa {_ED25519.split()[1]}",
        f"{_ED25519}\n{_OTHER}\n",
        f'command="/bin/sh" {_ED25519}',
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----\n",
        "cert-authority " + _ED25519,
    ],
    ids=["empty", "word", "no-key", "short", "no-base64", "other-kind", "two", "options", "private", "authority"],
)
def test_what_is_no_public_key_is_refused(text: str) -> None:
    """In words, and without a part of it."""
    with pytest.raises(UsageError) as refused:
        read_public(text)

    assert refused.value.reference == "not-a-public-key"
    assert "b3BlbnNz" not in refused.value.message


@pytest.mark.parametrize("text", ["", ",", "deploy,root", "all"])
def test_there_are_no_other_rights(text: str) -> None:
    """A right that is not known is none."""
    with pytest.raises(BulletproofError, match="right"):
        read_rights(text)


def test_what_openssh_makes_is_taken_with_its_fingerprint(tmp_path: Path) -> None:
    """Ours is the one that ssh-keygen -l tells."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen (Debian: openssh-client)")
    for kind in ("ed25519", "ecdsa", "rsa"):
        file = tmp_path / kind
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(file)], check=True)
        said = subprocess.run(["ssh-keygen", "-l", "-f", f"{file}.pub"], check=True, capture_output=True, text=True)

        assert read_public(file.with_suffix(".pub").read_text()).fingerprint == said.stdout.split()[1]


def test_keys_are_added_listed_and_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the account's own file, which nobody else may read; a link to it stays one."""
    home, elsewhere = tmp_path / "home", tmp_path / "kept"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    elsewhere.write_bytes(f"{_OTHER} ad\xe9\n".encode("latin-1"))
    (home / ".ssh/authorized_keys").symlink_to(elsewhere)
    monkeypatch.setenv("HOME", str(home))
    before = elsewhere.read_bytes()

    added = _run("add", "ci", "--can", "deploy,status", "--app", "shop", "--key", "-", given=f"{_ED25519} x\n")
    again = _run("add", "ci", "--can", "deploy,status", "--app", "shop", "--key", "-", given=f"{_ED25519} x\n")
    listed = _run("list")
    revoked = _run("revoke", "ci")

    assert "ci may deploy, status shop, and nothing else" in added.stderr
    assert "nothing to change" in again.stderr
    assert listed.stdout.startswith("ci  deploy, status  shop  SHA256:")
    assert "1 other entry" in listed.stderr
    assert "not let in any more" in revoked.stderr
    assert (home / ".ssh/authorized_keys").is_symlink()
    assert elsewhere.read_bytes() == before
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o600


def test_a_file_that_others_may_write_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sshd would not believe it, and whoever may write it needs no key of ours."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh").chmod(0o777)
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(Refused, match="other accounts may write"):
        _run("add", "ci", "--app", "shop", "--key", "-", given=_ED25519)


def _run(*words: str, given: str = "") -> Result:
    return CliRunner().invoke(bulletproof, ["keys", *words], input=given, catch_exceptions=False)
