"""A key that may do little: a real sshd lets it in to deploy its app, and to do nothing else; who it was is kept."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import pytest

import workshop
from bulletproof import __version__
from bulletproof.cli.client import Client, as_word
from bulletproof.domain.errand import ENGINE
from bulletproof.effects.audit import audit_log
from free_ports import free_port
from live_app import branch
from remote_host import FarApp, RemoteHost

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("remote")]


@dataclass(frozen=True, slots=True)
class KeyApp(FarApp):
    """The app as the owner of a key reaches it, from GitHub Actions as far as the environment says."""

    def argv(self, *words: str) -> list[str]:
        """The command line of a verb, by that key."""
        return [*_prefix(self.host), sys.executable, "-P", "-m", "bulletproof", "--to", "ci", *words]


def _prefix(host: RemoteHost | None) -> tuple[str, ...]:
    """The words before a command of the key's side, which shares no connection with anybody else."""
    assert host is not None
    runtime = host.folder / "ci-run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    run = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "o/r", "GITHUB_RUN_ID": "7"}
    extra = {"XDG_RUNTIME_DIR": str(runtime), "GITHUB_ACTIONS": "true", "GITHUB_ACTOR": "octocat", **run}
    return (*host.prefix, *(f"{name}={value}" for name, value in extra.items()))


@contextmanager
def _key(app: FarApp, rights: str) -> Iterator[None]:
    assert app.host is not None
    private = app.host.folder / "ci_key"
    made = app.run("keys", "add", "ci", "--can", rights, "--new", status=0)
    private.touch(mode=0o600)
    private.write_text(made.out)
    try:
        yield
    finally:
        app.host.forget_connections()
        app.run("keys", "revoke", "ci", status=0)
        private.unlink()


@pytest.fixture(scope="module")
def ci(app: FarApp) -> Iterator[KeyApp]:
    """The app by a key that may deploy, plan and look."""
    with _key(app, "deploy,plan,status"):
        yield KeyApp(
            root=app.root, name=app.name, folder=app.folder, port=app.port, settings=app.settings, host=app.host
        )


def test_a_key_deploys_and_it_is_told_who_it_was(app: FarApp, ci: KeyApp) -> None:
    """Known is the key and the address, claimed the rest: in releases, status, the log, and for who watches."""
    ci.deploy("v2")
    last = ci.history()[-1]
    words = 'key "ci" from 127.0.0.1, who claims to be octocat, https://github.com/o/r/actions/runs/7'

    assert last["started_by"] == words
    assert last["known"] == {"account": last["known"]["account"], "key": "ci", "address": "127.0.0.1"}  # type: ignore[index]
    assert last["claimed"] == {"by": "octocat", "run": "https://github.com/o/r/actions/runs/7"}
    assert "by key ci (octocat?)" in app.run("releases", status=0).out
    assert f"by {words}" in app.run("status", status=0).out
    assert words in app.run("logs", "--deployments", status=0).out
    mine = app.change("restart").must(0, "deployed")
    assert mine.status == 0
    assert app.history()[-1]["known"]["key"] is None  # type: ignore[index]


def test_an_old_job_that_is_run_again_does_not_go_backwards(app: FarApp, ci: KeyApp) -> None:
    """Refused on the host, in words that tell what serves; unless it was meant."""
    serving = ci.here.status()["serving"]
    refused = ci.run("deploy", "v1")
    planned = ci.run("plan", "v1")

    assert (refused.status, planned.status) == (1, 1)
    assert "error: older-than-live" in refused.err
    assert f"nothing was changed; {serving} serves" in refused.err
    assert "--allow-older" in refused.err
    assert "older-than-live" in planned.err
    assert ci.here.status()["serving"] == serving
    assert "older: " in ci.deploy("v1", "--allow-older").note("preflight")
    assert "is not in its history" not in ci.deploy("v2").note("preflight")
    assert app.deploy("v1").status == 0, "a person who names it means it"
    app.deploy("v2")


def test_of_two_pushes_at_once_the_newer_one_ends_up_live(ci: KeyApp) -> None:
    """Whoever takes the lock first: the older one is deployed before, or not at all."""
    older = branch(ci, {"one.txt": "1"}, title="One")
    newer = branch(ci, {"two.txt": "2"}, title="Two")
    with ci.begun("deploy", newer, "--wait", "300") as first, ci.begun("deploy", older, "--wait", "300") as second:
        ends = first.end(), second.end()

    assert str(ci.here.status()["serving"]).endswith(newer[:7])
    assert ends[0].status == 0
    assert ends[1].status == 0 or ends[1].reference == "older-than-live"
    assert ci.change("deploy", older).reference == "older-than-live"


def test_another_branch_is_deployed_and_it_is_said(ci: KeyApp) -> None:
    """A history that was rewritten has what is live no more; nobody can say which one is newer."""
    workshop.git(ci.folder, "reset", "-q", "--soft", "v2")
    branch(ci, {"three.txt": "3"}, title="Rewritten")

    assert "is not in its history" in ci.deploy().note("preflight")


def test_a_key_plans_and_changes_nothing(ci: KeyApp) -> None:
    """As its owner would with a shell."""
    before = ci.here.history()
    done = ci.run("plan", "--json", status=0)

    assert json.loads(done.out)["would"] == "deploy"
    assert ci.here.history() == before


@pytest.mark.parametrize(
    "words", [("rollback",), ("restart",), ("env", "list"), ("run", "--", "id"), ("destroy", "--yes"), ("keys", "list")]
)
def test_a_key_does_nothing_that_it_may_not(ci: KeyApp, words: tuple[str, ...]) -> None:
    """By the very client that it deploys with: refused in words, nothing changed, written down."""
    before, log = ci.here.history(), _log(ci)
    done = ci.run(*words)

    assert done.status == 1
    assert "error: key-refused" in done.err
    assert "this key may: deploy, plan, status" in done.err
    assert ci.here.history() == before
    assert [told["verdict"] for told in _log(ci)[len(log) :]] == ["refused"]


def test_a_key_is_of_one_app(ci: KeyApp) -> None:
    """Another name is refused before anybody looks whether there is such an app."""
    done = ci.run("status", "--app", "other")

    assert done.status == 1
    assert "another app was named" in done.err


def _client() -> str:
    return as_word(Client(version=__version__, host="ci"))


HOSTILE: tuple[tuple[str, ...], ...] = (
    ("ssh", "ci"),
    ("ssh", "ci", "id; touch PROOF"),
    ("ssh", "ci", "sh -c 'touch PROOF'"),
    ("ssh", "ci", "exec true; touch PROOF"),
    ("ssh", "ci", f"exec env BULLETPROOF_CLIENT=CLIENT {ENGINE} status --app APP; touch PROOF"),
    ("ssh", "ci", f"exec env BULLETPROOF_CLIENT=CLIENT {ENGINE} status --app $(touch PROOF)"),
    ("ssh", "ci", f"exec env BULLETPROOF_CLIENT=CLIENT {ENGINE} status --app APP\ntouch PROOF"),
    ("ssh", "ci", f"exec env BULLETPROOF_CLIENT=CLIENT {ENGINE} run --app APP -- touch PROOF"),
    ("ssh", "ci", f"exec env BULLETPROOF_CLIENT=CLIENT {ENGINE} --root /tmp status --app APP"),
    ("ssh", "ci", "A" * 60_000),
    ("ssh", "-s", "ci", "sftp"),
    ("scp", "/etc/hostname", "ci:PROOF"),
    ("scp", "-O", "/etc/hostname", "ci:PROOF"),
)


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_sshd_runs_nothing_else_for_the_key(ci: KeyApp, number: int) -> None:
    """Shells, terminals, other commands, copies: each is refused and written down with the address."""
    assert ci.host is not None
    proof = ci.host.folder / "proof"
    changes = {"PROOF": str(proof), "=CLIENT": f"={_client()}", "--app APP": f"--app {ci.name}"}
    argv = list(HOSTILE[number])
    for name, value in changes.items():
        argv = [word.replace(name, value) for word in argv]
    if argv[0] == "scp":
        argv[1:1] = ["-S", str(ci.host.folder / "bin" / "ssh")]
    log = _log(ci)
    done = subprocess.run(
        [*_prefix(ci.host), *argv], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60
    )
    (told,) = _log(ci)[len(log) :]

    assert done.returncode != 0
    assert not proof.exists()
    assert (told["verdict"], told["key"], told["from"]) == ("refused", "ci", "127.0.0.1")


def test_there_is_no_terminal(ci: KeyApp) -> None:
    """Sshd itself refuses it, before anything is asked of us."""
    argv = [*_prefix(ci.host), "ssh", "-tt", "ci"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode != 0
    assert "PTY allocation request failed" in done.stderr


@pytest.mark.parametrize("way", ["-L", "-R", "-D"])
def test_nothing_is_forwarded(ci: KeyApp, way: str) -> None:
    """Neither to the host's own services, nor from it to here."""
    assert ci.host is not None
    port, inner = free_port(), ci.layout.port.read_text().strip()
    words = {"-L": f"{port}:127.0.0.1:{inner}", "-R": f"{port}:127.0.0.1:{inner}", "-D": str(port)}[way]
    argv = [*_prefix(ci.host), "ssh", "-N", "-o", "ExitOnForwardFailure=yes", way, words, "ci"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as tunnel:
        try:
            time.sleep(1.5)
            assert not _answers(port)
        finally:
            tunnel.kill()


def _answers(port: int) -> bool:
    """Whether the app is reached by that port."""
    with closing(socket.socket()) as one:
        one.settimeout(2)
        if one.connect_ex(("127.0.0.1", port)) != 0:
            return False
        try:
            one.sendall(b"GET /up HTTP/1.0\r\n\r\n")
            return one.recv(4).startswith(b"HTTP")
        except OSError:
            return False


def test_a_revoked_key_is_not_let_in(app: FarApp, ci: KeyApp) -> None:
    """From the next connection on."""
    assert app.host is not None
    keys = app.host.home / ".ssh/authorized_keys"
    kept = keys.read_text()
    app.run("keys", "revoke", "ci", status=0)
    app.host.forget_connections()
    try:
        done = ci.run("status")
    finally:
        keys.write_text(kept)

    assert done.status == 1
    assert "ssh-refused" in done.err


def _log(app: FarApp) -> list[dict[str, str]]:
    log = audit_log(app.root)
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
