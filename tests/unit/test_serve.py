"""The forced command of a key: it does what the key may do; for all else it runs nothing, and writes down who asked."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from bulletproof import __version__
from bulletproof.cli import serve
from bulletproof.cli.client import Client, as_word
from bulletproof.cli.main import bulletproof
from bulletproof.domain.errand import ENGINE, Right, read_errand
from bulletproof.effects.audit import audit_log
from bulletproof.errors import Refused

_CLIENT = as_word(Client(version=__version__, host="prod"))
_DIGEST = "0" * 64
_ALL = frozenset(Right)


def _asked(words: str, client: str = _CLIENT) -> str:
    return f"exec env BULLETPROOF_CLIENT={client} {ENGINE} {words}"


GOOD = {
    f"deploy --app shop --bundle {_DIGEST}": Right.DEPLOY,
    f"deploy --app shop --json --wait 600 --bundle {_DIGEST}": Right.DEPLOY,
    f"deploy --app shop --wait 0.5 --detach --allow-older --allow-data-loss --bundle {_DIGEST}": Right.DEPLOY,
    "attach --app shop": Right.DEPLOY,
    "attach --app shop --json -- 17": Right.ROLLBACK,
    "abort --app shop": Right.DEPLOY,
    "logs --app shop --lines 20 -- mailer": Right.DEPLOY,
    f"plan --app shop --bundle {_DIGEST}": Right.PLAN,
    "rollback --app shop": Right.ROLLBACK,
    "rollback --app shop --wait 60 -- 3-abcdef0": Right.ROLLBACK,
    "status --app shop --json": Right.STATUS,
    "releases --app shop --all": Right.STATUS,
    "check --app shop --format nagios": Right.STATUS,
}

_STATUS = _asked("status --app shop")
_DEPLOY = f"deploy --app shop --bundle {_DIGEST}"
_VERBS = (
    *("run --app shop -- sh", "env --app shop set X=1", "env set --app shop X=1", "destroy --app shop --yes", "stop"),
    *("start --app shop", "restart --app shop", "recover --app shop", "setup", "keys add x --new", "keys list"),
    *(
        "serve --key x --app shop --can deploy",
        "init",
        "demo",
        "prove",
        "backup list --app shop",
        "--version",
        "--help",
    ),
    *("backup restore --app shop x", "--root /tmp deploy", f"--root / {_DEPLOY}", f"--to other {_DEPLOY}", "sh", "-"),
    *("backup --app shop", "dev", "ci github", "stop --app shop", "DEPLOY --app shop", "deplo --app shop"),
)
_WORDS = (
    *("deploy", "deploy --app shop", f"deploy --bundle {_DIGEST}", f"deploy --app other --bundle {_DIGEST}"),
    *(f"{_DEPLOY} --app other", f"{_DEPLOY} --root /", f"{_DEPLOY} --database /etc/passwd", f"{_DEPLOY} --backup x"),
    *(f"{_DEPLOY} --new-database", f"{_DEPLOY} --worktree", f"{_DEPLOY} --to other", f"{_DEPLOY} -- HEAD"),
    *(f"{_DEPLOY} HEAD", f"{_DEPLOY} --help", f"{_DEPLOY} --wait", f"{_DEPLOY} --wait x", f"{_DEPLOY} --wait -1"),
    *(f"{_DEPLOY} --wait 1e9", f"{_DEPLOY} --wait 999999", f"{_DEPLOY} --json --json", "deploy --app=shop"),
    *("deploy --app shop --bundle xyz", f"deploy --app shop --bundle {_DIGEST.replace('0', 'G')}", f"{_DEPLOY} --"),
    *(f"deploy --app shop --bundle {_DIGEST}0", "deploy --app shop --bundle -", f"{_DEPLOY} -- -", f"{_DEPLOY} -n"),
    *(
        "rollback --app shop 3",
        "rollback --app shop -- 3 4",
        "rollback --app shop -- ../x",
        "rollback --app shop -- -x",
    ),
    *("rollback --app shop -- --root", "rollback --app shop --allow-data-loss", "rollback --app shop --bundle 0"),
    *("attach --app shop -- x", "attach --app shop -- 1/2", "attach --app shop -- 99999999", "attach --app ../x"),
    *("logs --app shop -- ../../etc/passwd", "logs --app shop --lines all", "logs --app shop --access", "logs -f"),
    *(
        "status --app Shop",
        "status --app shop2",
        "status --app",
        "status --app shop extra",
        "status --app shop --root /",
    ),
    *("check --app shop --watch 1", "check --app shop --format=json", "check --app shop --only a --only b"),
)
_LINES = (
    *("", " ", "sh", "bash -i", "id", "exec true; id", "true", "exec true ", " exec true", "exec true\n", "exec false"),
    *("scp -t /tmp", "scp -f /etc/passwd", "rsync --server -vlogDtpre.iLsfxC . /tmp", "/usr/lib/openssh/sftp-server"),
    *("internal-sftp", "sftp", "git-upload-pack '/x'", "cat ~/.ssh/id_ed25519", f"{ENGINE} {_DEPLOY}", "nc -l 1234"),
    *(f"exec {ENGINE} {_DEPLOY}", f"env BULLETPROOF_CLIENT={_CLIENT} {ENGINE} {_DEPLOY}", f"bulletproof {_DEPLOY}"),
    *(f"exec env X=1 BULLETPROOF_CLIENT={_CLIENT} {ENGINE} {_DEPLOY}", _asked(f" {_DEPLOY}"), _asked(f"{_DEPLOY} ")),
    *(_asked(f"{_DEPLOY}; id"), _asked(f"{_DEPLOY} && id"), _asked(f"{_DEPLOY} | sh"), _asked(f"{_DEPLOY} $(id)")),
    *(_asked(f"{_DEPLOY} `id`"), _asked(f"{_DEPLOY}\nid"), _asked(f"{_DEPLOY}\r\nid"), _asked(f"{_DEPLOY}\tx")),
    *(_asked(f"{_DEPLOY} > /x"), _asked(f"{_DEPLOY} < /etc/passwd"), _asked(f"{_DEPLOY} &"), _asked(f"{_DEPLOY} #")),
    *(_asked("'deploy' --app shop"), _asked('"deploy" --app shop'), _asked(r"deploy\ --app shop"), _asked("~/x")),
    *(_asked("status --app shop*"), _asked("status --app sh?p"), _asked("status --app {shop,x}"), _asked("!x")),
    *(_asked("status --app $HOME"), _asked("status --app ${IFS}"), _asked("status --app shop\x1b[2J"), _asked("\x7f")),
    *(_asked("status --app sh\u00f6p"), _asked("status\u00a0--app shop"), _asked("status --app shop\u2028")),
    *(_asked("status --app shop", "x y"), _asked("status --app shop", ""), _asked("status --app shop", "$(id)")),
    *(_STATUS.replace(ENGINE, "/bin/sh"), _STATUS.replace(ENGINE, f"../{ENGINE}"), _STATUS.replace("current", "other")),
    *(_STATUS.replace("exec ", "exec -a x "), _STATUS.replace("=", "\\="), f"{_STATUS}\0".replace("\0", "\\0")),
    *(_asked("status --app shop " + "x" * 9000), "A" * 100_000, _asked(" ".join(["status"] * 200)), "exec env " * 500),
    *(_asked("status --app shop", "bm90IGpzb24"), _asked("status --app shop", "e30"), _asked("x", "A" * 5000)),
)  # fmt: skip
HOSTILE = (*_LINES, *map(_asked, _VERBS), *map(_asked, _WORDS))


class _Became:
    """What the process would have become; the only thing here that is not real."""

    def __init__(self) -> None:
        self.argv: tuple[str, ...] = ()
        self.environment: dict[str, str] = {}

    def __call__(self, argv: tuple[str, ...], environment: dict[str, str]) -> None:
        self.argv, self.environment = argv, environment


def _serve(root: Path, line: bytes, rights: str = "deploy,plan,rollback,status") -> tuple[_Became, int, str]:
    became = _Became()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve, "become", became)
        patch.setitem(os.environb, b"SSH_ORIGINAL_COMMAND", line)
        patch.setenv("SSH_CONNECTION", "192.0.2.7 50000 192.0.2.1 22")
        words = ["--root", str(root), "serve", "--key", "ci", "--app", "shop", "--can", rights]
        done = CliRunner().invoke(bulletproof, words, standalone_mode=False)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return became, done.exit_code, done.output


def _log(root: Path) -> list[dict[str, Any]]:
    log = audit_log(root)
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_there_are_enough_of_them() -> None:
    """A hundred at least, each another one."""
    assert len(set(HOSTILE)) == len(HOSTILE) > 130


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_what_a_key_may_not_do_runs_nothing_and_is_written_down(tmp_path: Path, number: int) -> None:
    """One line in the log with the key and the address, whatever was asked for; and a sentence for who asked."""
    became, status, said = _serve(tmp_path, HOSTILE[number].encode())
    (told,) = _log(tmp_path)

    assert became.argv == ()
    assert status != 0
    assert "error: " in said or '"error": {"reference": "' in said
    assert (told["verdict"], told["key"], told["from"]) == ("refused", "ci", "192.0.2.7")
    assert said.isprintable() or set(filter(lambda char: not char.isprintable(), said)) == {"\n"}


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200).filter(lambda line: b"\0" not in line),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60).map(
            lambda text: _asked(f"{_DEPLOY} {text}").encode()
        ),
        st.tuples(st.sampled_from(sorted(GOOD)), st.integers(0, 150), st.binary(min_size=1, max_size=3)).map(
            lambda made: (line := _asked(made[0]).encode())[: made[1]] + made[2].replace(b"\0", b"\1") + line[made[1] :]
        ),
        st.lists(
            st.sampled_from([*"abcdefghij", "--app", "shop", "--root", "/", "--", "deploy", "status", "-f", _DIGEST]),
            min_size=1,
            max_size=8,
        ).map(lambda words: _asked(" ".join(words)).encode()),
    )
)
def test_no_line_that_chance_makes_does_more_than_an_errand(line: bytes) -> None:
    """It is refused, or it is one of the verbs on this app, all of whose words are on the list."""
    try:
        errand = read_errand(line, _ALL, "shop")
    except Refused:
        return
    verb, *rest = errand.words
    assert verb in {"deploy", "plan", "rollback", "attach", "abort", "logs", "status", "releases", "check"}
    assert rest[rest.index("--app") + 1] == "shop"
    assert {"--root", "--database", "--backup", "--new-database", "--worktree", "--to"}.isdisjoint(rest)
    assert all(
        set(word) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-") for word in rest
    )


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=400).filter(lambda line: b"\0" not in line and line != b"exec true"))
def test_whatever_chance_makes_is_written_down_as_one_line(line: bytes) -> None:
    """Line ends, colours and bytes that are no text included."""
    with tempfile.TemporaryDirectory() as root:
        became, _, _ = _serve(Path(root), line)
        (told,) = _log(Path(root))

    assert became.argv == ()
    assert told["asked"].isprintable()


@pytest.mark.parametrize("words", sorted(GOOD))
def test_what_a_key_may_do_becomes_exactly_that(tmp_path: Path, words: str) -> None:
    """The words as they came, on the key's own root, with its name; written down as well."""
    became, _, said = _serve(tmp_path, _asked(words).encode(), GOOD[words])

    assert said == ""
    assert became.argv[1:] == ("-P", "-m", "bulletproof", "--root", str(tmp_path), *words.split())
    assert became.environment["BULLETPROOF_KEY"] == "ci"
    assert "SSH_ORIGINAL_COMMAND" not in became.environment
    assert [told["verdict"] for told in _log(tmp_path)] == ["served"]


@pytest.mark.parametrize("words", sorted(GOOD))
def test_no_right_stands_for_another(tmp_path: Path, words: str) -> None:
    """With all rights but those that a verb needs, it is refused."""
    enough = {"attach": {"deploy", "rollback"}, "abort": {"deploy", "rollback"}}
    needed = enough.get(words.split(maxsplit=1)[0], {str(GOOD[words])})
    became, status, said = _serve(tmp_path, _asked(words).encode(), ",".join({*map(str, Right)} - needed))

    assert (became.argv, status) == ((), 1)
    assert "not among what it may do" in said


def test_a_greeting_does_nothing(tmp_path: Path) -> None:
    """By it a client finds out whether it is let in."""
    became, status, said = _serve(tmp_path, b"exec true")

    assert (became.argv, status, said) == ((), 0, "")


def test_a_full_log_becomes_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a key asks for cannot fill the disk."""
    monkeypatch.setattr("bulletproof.effects.audit.LARGEST_BYTES", 2000)
    for _ in range(20):
        _serve(tmp_path, b"x" * 500)

    sizes = [path.stat().st_size for path in audit_log(tmp_path).parent.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 3000
