"""The workflows that `ci github` writes, executed as they are by act, against a server with systemd and sshd."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import workshop
from bulletproof.effects import lock
from embedded.places import until
from forge import Forge, Run, Running, new_forge
from hosts import lab
from hosts.conftest import NewServer
from hosts.person import PAGE, Person, commands_of
from hosts.servers import Access, ServerApp, living
from live_app import COMMAND_SECONDS, branch

pytestmark = [
    pytest.mark.skipif(bool(lab.why_not()), reason=lab.why_not()),
    pytest.mark.xdist_group("hosts"),
    pytest.mark.timeout(600),
]

_RIGHTS = {"prod": "deploy,rollback,status", "prod-plan": "plan,status"}
_DISK_MIB = 2048


@pytest.fixture(scope="module")
def server(new_server: NewServer, set_up: Path, access: Access) -> Iterator[lab.Server]:
    """A server that was set up, with a disk of its own that can be filled."""
    with lab.booted(new_server(set_up, disk_mib=_DISK_MIB)) as booted:
        access.let_in(booted)
        yield booted


@pytest.fixture(scope="module")
def app(server: lab.Server, access: Access, datacharted: Path) -> Iterator[ServerApp]:
    """DataCharted v2 on it, deployed by a person."""
    with living(server, access, datacharted) as lasting:
        lasting.settings.update(app={"workers": 1}, health={"deadline_seconds": 8, "passes": 1})
        lasting.settings["hosts"] = {"prod": f"root@{lab.ADDRESS}"}
        lasting.configure()
        lasting.deploy("v2")
        yield lasting


@pytest.fixture(scope="module")
def forge(app: ServerApp, tmp_path_factory: pytest.TempPathFactory) -> Forge:
    """The project with workflows, pushed; keys of the server and its own in the forge's secrets."""
    assert app.access is not None
    known = (app.access.folder / "known_hosts").read_text().strip()
    secrets = {}
    for environment, rights in _RIGHTS.items():
        made = app.run("keys", "add", environment, "--can", rights, "--new", status=0)
        secrets[environment] = {"BULLETPROOF_SSH_KEY": made.out.strip(), "BULLETPROOF_KNOWN_HOSTS": f"{known}\n# x"}
    return new_forge(app.folder, tmp_path_factory.mktemp("forge"), secrets)


def _serving(app: ServerApp) -> str:
    return str(app.status()["serving"])


def test_a_push_is_tested_and_deployed(app: ServerApp, forge: Forge) -> None:
    """What serves is the commit that was pushed; who, whence and with which key is in `releases`."""
    with app.under_load():
        run = forge.push().must(0)
    last = app.history()[-1]
    release = str(last["release"])

    assert release.endswith(workshop.git(forge.folder, "rev-parse", "HEAD")[:7])
    assert last["known"] == {"account": last["known"]["account"], "key": "prod", "address": lab.ADDRESS}  # type: ignore[index]
    assert last["claimed"]["by"] == "octocat"  # type: ignore[index]
    assert str(last["claimed"]["run"]).startswith("https://github.com/o/r/actions/runs/")  # type: ignore[index]
    assert "by key prod (octocat?)" in app.run("releases", status=0).out
    assert "::group::rehearse" in run.log
    assert f"serves {release}" in run.log
    assert f"**Now: {release} serves at" in run.summary
    assert f"    {app.name} serves {release} at" in run.summary
    assert forge.secrets["prod"]["BULLETPROOF_SSH_KEY"].splitlines()[2] not in run.log + run.summary


def test_a_push_that_cannot_boot_is_undone(app: ServerApp, forge: Forge) -> None:
    """The job is red and says what was seen and what serves; no line of the app's is a command of the workflow's."""
    before = _serving(app)
    source = (app.folder / "run.py").read_text()
    broken = 'raise RuntimeError("no boot\\n::warning::and no annotation\\n``` ${{ github.token }} <b>")\n'
    branch(app, {"run.py": f"{broken}{source}"}, title="Broken ```\n::error::x")
    run = forge.push().must(1)
    _back(forge)

    assert "::error title=" in run.log
    assert "no boot" in run.summary
    assert f"everything was undone; {before} serves" in run.log
    assert f"**Now: {before} serves at" in run.summary
    assert not re.search(r"^\S+ +\| +::(warning|error)::", run.log, re.MULTILINE)
    assert _serving(app) == before


def _back(forge: Forge) -> None:
    """What is checked out is the commit before."""
    workshop.git(forge.folder, "reset", "-q", "--hard", "HEAD^")


def test_a_pull_request_is_planned(app: ServerApp, forge: Forge, tmp_path: Path) -> None:
    """On a copy of the live data, by a key that may do no more; one of a fork not at all. Its names are no commands."""
    before = app.history()
    act = f"touch {tmp_path}/proof"
    odd = f'x";{act};"$({act})`{act}`${{{{ github.token }}}}\n::error::x'
    told = {"title": odd, "body": odd, "number": 7}
    ref = f"a;touch${{IFS}}{tmp_path.name}"
    workshop.git(forge.folder, "cherry-pick", "v3")
    workshop.git(forge.folder, "commit", "-q", "--amend", "-m", odd)
    ours = {"head": {"repo": {"full_name": "o/r"}, "ref": ref}, **told}
    theirs = {"head": {"repo": {"full_name": "x/r"}, "ref": ref}, **told}
    run = forge.run("pull_request", "prod-plan", pull_request=ours).must(0)
    fork = forge.run("pull_request", "prod-plan", pull_request=theirs).must(0)
    denied = forge.push("prod-plan").must(1)
    _back(forge)

    assert "would deploy" in run.log
    for words in ("a migration, requests would wait about", "nothing is lost", "rollback", "chart: "):
        assert words in run.summary, run.summary
    assert "would deploy" not in fork.log + fork.summary
    assert "key-refused" in denied.log
    assert "### ❌ deploy: not done" in denied.summary
    assert "::error title=deploy failed::prod did not do it" in denied.log
    assert not (tmp_path / "proof").exists()
    assert app.history() == before


def test_a_job_that_is_run_again_does_not_go_backwards(app: ServerApp, forge: Forge) -> None:
    """Refused, and told what serves; somebody who means it says so where the workflow is started by hand."""
    newest, live = workshop.git(forge.folder, "rev-parse", "HEAD"), _serving(app)
    workshop.git(forge.folder, "checkout", "-q", "--detach", "HEAD^")
    again = forge.push().must(1)
    refused = _serving(app)
    meant = forge.run("by-hand", "prod", inputs={"may-be-older": "true"}).must(0)
    workshop.git(forge.folder, "checkout", "-q", newest)

    assert "older-than-live" in again.summary
    assert f"nothing was changed; {live} serves" in again.log
    assert f"**Now: {live} serves" in again.summary
    assert refused == live
    assert f"**Now: {_serving(app)} serves" in meant.summary
    assert _serving(app) != live


def test_a_rollback_and_a_check_are_done_by_hand(app: ServerApp, forge: Forge, tmp_path: Path) -> None:
    """A release is chosen, and no text of it becomes a command."""
    lived = [one["release"] for one in app.history() if one["outcome"] == "deployed"]
    live = _serving(app)
    chosen = next(str(release) for release in reversed(lived) if release != live)
    proof = tmp_path / "proof"
    odd = forge.run("rollback", "prod", inputs={"release": f'x"; touch {proof}; echo "$(touch {proof})'}).must(1)
    run = forge.run("rollback", "prod", inputs={"release": chosen}).must(0)
    rolled = _serving(app)
    checked = forge.run("check", "prod-plan")

    assert "key-refused" in odd.log
    assert not proof.exists()
    assert rolled == chosen
    assert f"**Now: {chosen} serves at" in run.summary
    assert checked.status in {0, 1}, checked
    assert "processes" in checked.summary


def _is_rehearsing(app: ServerApp) -> bool:
    holder = lock.peek(app.layout.lock)
    return holder is not None and holder.step == "rehearse"


def _cancel(_: ServerApp, running: Running) -> None:
    """As GitHub does: SIGINT for the process that the step began with; later steps run if they always do."""
    running.step().send_signal(signal.SIGINT)


def _cut(app: ServerApp, _: Running) -> None:
    """The connection of the job ends, without a goodbye."""
    app.host.must("sh", "-c", "kill -9 $(ps -eo pid,args | awk '/sshd: root@notty/ && !/awk/ {print $1}')")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loss:
    how: Callable[[ServerApp, Running], None]
    words: str


_GOES_ON = "goes on, and goes live or is undone by itself; until then what served before serves"
_LOSSES = {
    "cancelled": _Loss(how=_cancel, words="stopped watching; what was begun at prod"),
    "network-lost": _Loss(how=_cut, words="the connection to prod was lost; what was begun there"),
}


@pytest.mark.parametrize("name", _LOSSES)
def test_a_deployment_goes_on_without_its_job(app: ServerApp, forge: Forge, name: str) -> None:
    """It belongs to its server; the job says so in its log and its summary, and what serves at that moment."""
    loss, before = _LOSSES[name], _serving(app)
    commit = branch(app, {"run.py": _slow(app), "four.txt": name}, title=name)
    with forge.begun("push", "prod") as running:
        until(lambda: _is_rehearsing(app) or not running.is_running(), seconds=COMMAND_SECONDS)
        number = _at_work(app)
        loss.how(app, running)
        if name == "cancelled":
            _push_beside(app, forge, number)
        run = running.end().must(1)
    until(app.is_idle, "the deployment did not end by itself", seconds=COMMAND_SECONDS)
    ended = next(one for one in app.history() if one["number"] == number)

    assert (ended["outcome"], ended["release"]) == ("deployed", f"{number}-{commit[:7]}")
    assert f"{loss.words} {_GOES_ON}" in run.log
    assert f"{loss.words} {_GOES_ON}" in run.summary
    assert "⚠️ deploy: " in run.summary
    assert f"    {app.name} serves {before} at" in run.summary
    assert f"`deploy` of deployment {number} by" in run.summary


def _push_beside(app: ServerApp, forge: Forge, first: int) -> None:
    """Of two pushes at once the second waits, and tells for whom and what came of it; without its runner it goes on."""
    newer = branch(app, {"five.txt": ""}, title="Of two pushes the newer")
    with forge.begun("push", "prod") as running:
        until(lambda: _at_work(app) > first and _is_rehearsing(app), seconds=COMMAND_SECONDS)
        running.kill()
    until(app.is_idle, "the deployment did not end by itself", seconds=COMMAND_SECONDS)

    assert f"waiting for `deploy` of deployment {first}" in running.log()
    assert f"({first}-" in running.log()
    assert _serving(app).endswith(newer[:7])


def _at_work(app: ServerApp) -> int:
    """The number of the deployment that runs; 0 when none does."""
    holder = lock.peek(app.layout.lock)
    return (holder and holder.deployment) or 0


def _slow(app: ServerApp) -> str:
    """A release that takes its time, so that there is time to lose it."""
    source = (app.folder / "run.py").read_text()
    return source if "sleep" in source else f"import time\n\ntime.sleep(2)\n{source}"


def _another_push(app: ServerApp, forge: Forge) -> None:
    """Of two pushes at once the second waits, tells for whom, and what came of the first; the newer one is live."""
    first = lock.peek(app.layout.lock)
    newer = branch(app, {"five.txt": ""}, title="Of two pushes the newer")
    run = forge.push().must(0)
    assert first is not None
    assert f"waiting for `deploy` of deployment {first.deployment}" in run.log
    assert f"({first.deployment}-" in run.log
    assert _serving(app).endswith(newer[:7])


def _unreachable(app: ServerApp, forge: Forge) -> Run:
    app.host.must("systemctl", "stop", "ssh.service", "ssh.socket")
    try:
        return forge.push()
    finally:
        app.host.must("systemctl", "start", "ssh.service")


def _another_key(app: ServerApp, forge: Forge) -> Run:
    known = f"{lab.ADDRESS} {' '.join((_access(app) / 'key.pub').read_text().split()[:2])}"
    secrets = {"prod": {**forge.secrets["prod"], "BULLETPROOF_KNOWN_HOSTS": known}}
    return replace(forge, secrets=secrets).push()


def _access(app: ServerApp) -> Path:
    assert app.access is not None
    return app.access.folder


def _full_disk(app: ServerApp, forge: Forge) -> Run:
    app.host.must(
        "sh",
        "-c",
        "fallocate -l $(($(df --output=avail -B1 / | tail -1) - 65536)) /filled; cat /dev/zero >/more || true",
    )
    try:
        return forge.push()
    finally:
        app.host.must("rm", "-f", "/filled", "/more")


_REFUSALS: dict[str, tuple[Callable[[ServerApp, Forge], Run], str]] = {
    "host-unreachable": (_unreachable, "nothing was begun there, and what serves is what served before"),
    "host-key-changed": (_another_key, "nothing was begun there, and what serves is what served before"),
    "disk-": (_full_disk, "serves"),
}


@pytest.mark.parametrize("reference", _REFUSALS)
def test_a_push_that_cannot_begin_says_what_serves(app: ServerApp, forge: Forge, reference: str) -> None:
    """Nothing is begun; the job is red, as an annotation and in the summary, with what is known of what serves."""
    act, words = _REFUSALS[reference]
    before, serving = [one["number"] for one in app.history() if one["outcome"] == "deployed"], _serving(app)
    run = act(app, forge).must(1)

    assert f"::error title={reference}" in run.log
    assert reference in run.summary
    assert words in run.summary, run.summary
    assert [one["number"] for one in app.history() if one["outcome"] == "deployed"] == before
    assert _serving(app) == serving


def test_every_command_of_the_page_for_a_new_team_member_works(app: ServerApp, forge: Forge, tmp_path: Path) -> None:
    """From a clone to a change that serves, in the page's own words and order; what it says of each is so."""
    person = _new_person(app, forge, tmp_path)
    said: dict[str, str] = {}
    for command in commands_of(PAGE):
        match command.split():
            case ["bulletproof", "dev", "--migrate"]:
                said[command] = person.watches(command, outside=True)
            case ["bulletproof", "dev", *_]:
                said[command] = person.watches(command)
            case ["bulletproof", "check", *_]:
                said[command] = person.types(f"{command} || test $? = 1")
            case ["…"]:
                (person.here / "one.txt").write_text("faster")
            case _:
                said[command] = person.types(command)
        if command.startswith("cp "):
            (person.here / ".env").write_text("SECRET_KEY=mine\nDATABASE_URL=sqlite:///app_dev.db\n")
        if command.startswith("git push"):
            person.types("git push -q origin HEAD:main")  # it was merged
            forge.push(folder=person.here).must(0)
            merged = workshop.git(person.here, "rev-parse", "HEAD")[:7]
            assert _serving(app).endswith(merged)

    assert len(said) == 14
    assert "flask --app run:app db upgrade" in said["bulletproof dev --migrate"]
    assert "a copy of the data: " in said["bulletproof dev --copy --host prod"]
    assert "would" in said["bulletproof plan --to prod"]
    assert "by key prod (octocat?)" in said["bulletproof releases --to prod"]
    assert merged in said["bulletproof status --to prod"]
    assert not _serving(app).endswith(merged), "the page ends with a rollback"
    app.run("keys", "revoke", "ada", status=0)


def _new_person(app: ServerApp, forge: Forge, home: Path) -> Person:
    """Their home has a key and nothing else; the project lies at the forge, as a repository that takes pushes."""
    assert app.access is not None
    origin = forge.home / "origin/acme/shop.git"
    origin.parent.mkdir()
    workshop.git(forge.folder, "branch", "-f", "main")
    workshop.git(forge.folder, "clone", "-q", "--bare", "--branch", "main", str(forge.folder), str(origin))
    for name in ("allowAnySHA1InWant", "allowFilter"):
        workshop.git(origin, "config", f"uploadpack.{name}", "true")
    (home / ".ssh").mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / ".ssh/id_ed25519")], check=True)
    (home / "gitconfig").write_text(f'[url "file://{forge.home}/origin/"]\n\tinsteadOf = git@github.com:\n')
    if (Path.home() / ".config/pip").is_dir():
        (home / ".config").mkdir()
        (home / ".config/pip").symlink_to(Path.home() / ".config/pip")
    return Person(home=home, access=app.access)
