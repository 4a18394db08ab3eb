"""`deploy`, end to end: whatever can be deployed becomes live without a dropped request, and is told step by step."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import pytest

import workshop
from bulletproof.cli.render import SILENT, SILENT_WITHOUT_WORDS
from bulletproof.operations.pipelines import DEPLOY, FIRST
from live_app import Done, LiveApp

pytestmark = [pytest.mark.xdist_group("deploy"), pytest.mark.timeout(600)]

_STEP = re.compile(r"  (\S+) +\d+\.\d s(?:  .*)?")
_VERSION = "app/version.py"


def _saying(version: str) -> dict[str, str]:
    """A change of the code that can be seen from outside."""
    return {_VERSION: f"VERSION = {version!r}\n"}


@pytest.fixture(scope="module")
def first(make_lasting_app: Callable[[str], LiveApp]) -> tuple[LiveApp, Done]:
    """An app whose v1 was deployed as a person would, and what was said of it."""
    app = make_lasting_app("deploy")
    app.settings["keep"] = {"releases": 2}
    app.configure()
    return app, app.run("deploy", "v1", status=0)


@pytest.fixture
def app(first: tuple[LiveApp, Done]) -> LiveApp:
    """The app, something of it live."""
    return first[0]


def test_each_step_is_told_on_one_line_with_its_time(first: tuple[LiveApp, Done]) -> None:
    """The talk of a deployment goes to stderr: what begins, each step once and in order, what serves and where."""
    app, done = first
    begun, *steps, ended = done.err.splitlines()
    release = app.history()[0]["release"]

    assert begun == f"deploying {app.name} {release} “The first release”"
    assert [found.group(1) for line in steps if (found := _STEP.fullmatch(line))] == [
        step.name for step in (*FIRST.before, *FIRST.after) if step.name not in SILENT | SILENT_WITHOUT_WORDS
    ]
    assert re.fullmatch(rf"deployed {release} in \d+\.\d s, serving at {app.address}", ended)
    assert done.out == ""


def test_dotenv_is_imported_by_the_first_deployment_alone(app: LiveApp) -> None:
    """The settings of .env are taken once; a later deployment keeps what the host has, whatever .env says by then."""
    (app.folder / ".env").write_text("SECRET_KEY=another-one\nLATER=too-late\n")
    app.deploy("v1")

    assert json.loads(app.layout.environment.read_text()) == {"SECRET_KEY": "only-for-the-demonstration"}
    assert app.run("env", "list").out == "SECRET_KEY\n"


def test_a_code_change_goes_live_under_load(app: LiveApp) -> None:
    """A tag goes live: no request fails, from the cutover on only the new version answers, and the old one is gone."""
    if app.version() != "v1":
        app.deploy("v1")
    with app.under_load() as traffic:
        done = app.deploy("v2")
        after = traffic.mark()
        time.sleep(1.0)
        assert set(traffic.report(after).versions) == {"v2"}
    number = app.status()["deployment"]

    assert app.version() == "v2"
    assert app.numbers()["processes"] == app.numbers()["sockets"] == {number}
    assert app.layout.current.resolve() == app.layout.release(done.release)
    assert app.status()["serving"] == done.release
    assert not app.leftovers()


def test_json_tells_every_event_on_a_line_of_its_own(app: LiveApp) -> None:
    """With --json stdout is one event per line, each step started and done once, the outcome last, stderr empty."""
    done = app.deploy("v2")
    names = [step.name for step in (*DEPLOY.before, *DEPLOY.after)]

    assert done.steps("step-started") == done.steps("step-done") == names
    assert done.events[0].items() >= {"event": "begun", "kind": "deploy", "release": done.release}.items()
    assert [event["event"] for event in done.events].count("committed") == 1
    assert (
        done.last.items()
        >= {
            "event": "deployment",
            "outcome": "deployed",
            "release": done.release,
            "serving": done.release,
            "address": app.address,
            "error": None,
        }.items()
    )
    assert isinstance(done.last["seconds"], float)


def test_a_release_is_sealed_and_shares_nothing_with_another(app: LiveApp) -> None:
    """No file of a live release can be written by anybody, and its environment has no file in common with another's."""
    while len(app.releases()) < 2:
        app.deploy("v2")
    older, newer = sorted(app.releases())
    files = [path for path in app.layout.release(newer).rglob("*") if not path.is_symlink()]

    assert len(files) > 1000
    assert not [path for path in files if path.stat().st_mode & 0o222 and path.is_file()]
    assert all(path.stat().st_nlink == 1 for path in files if path.is_file())
    assert _packages(app, older) == _packages(app, newer)
    assert (app.layout.source(newer) / "app" / "__pycache__").is_dir()
    assert not _mentions(app.layout.venv(newer), str(app.layout.venv(older)))


def _packages(app: LiveApp, release: str) -> set[str]:
    return {path.name for path in app.layout.venv(release).glob("lib/*/site-packages/*")}


def _mentions(venv: Path, text: str) -> bool:
    return any(text in file.read_text(errors="replace") for file in (venv / "bin").iterdir() if file.is_file())


def test_head_is_deployed_when_nothing_is_named(app: LiveApp) -> None:
    """Without a wish it is the last commit, and it is said that uncommitted changes were left out."""
    commit = workshop.commit(app.folder, _saying("committed"), "Say so")
    workshop.write(app.folder, _saying("not committed"))
    done = app.run("deploy", status=0)

    assert app.version() == "committed"
    assert "uncommitted changes are not deployed" in done.err
    assert app.history()[-1].items() >= {"revision": commit, "title": "Say so"}.items()


def test_a_worktree_is_deployed_as_it_lies_there(app: LiveApp) -> None:
    """--worktree takes uncommitted changes and new files, but nothing that git ignores."""
    workshop.write(app.folder, {**_saying("as it lies"), "new.txt": "new\n"})
    release = app.deploy("--worktree").release

    assert app.version() == "as it lies"
    assert (app.layout.source(release) / "new.txt").read_text() == "new\n"
    assert not (app.layout.source(release) / ".env").exists()


def test_a_folder_without_git_is_deployed(app: LiveApp, tmp_path: Path) -> None:
    """A folder that is no repository is deployed as it is, and its .env stays outside the release."""
    plain = tmp_path / "plain"
    shutil.copytree(app.folder, plain, ignore=shutil.ignore_patterns(".git"))
    workshop.write(plain, _saying("plain"))
    release = LiveApp(root=app.root, name=app.name, folder=plain, port=app.port).deploy().release

    assert app.version() == "plain"
    assert release.endswith("-files")
    assert not (app.layout.source(release) / ".env").exists()


def test_only_as_many_releases_are_kept_as_configured(app: LiveApp) -> None:
    """After a deployment only the last ones that were live are on disk, the live one among them; their data stays."""
    while len([one for one in app.history() if one["outcome"] == "deployed"]) < 3:
        app.deploy("v1")
    before = app.status()["live"]
    release = app.deploy("v2").release

    assert app.releases() == {before, release}
    assert app.numbers()["settings"] <= {one["number"] for one in app.history()}


def test_the_client_reaches_the_app_as_it_is(app: LiveApp) -> None:
    """The app sees the client's own address, scheme and host, and nothing that a client claims of itself."""
    status, _, body = app.ask("/api/whoami", **{"X-Forwarded-For": "8.8.8.8", "X-Forwarded-Proto": "https"})

    assert status == HTTPStatus.OK
    told = json.loads(body)
    assert (told["address"], told["scheme"]) == ("127.0.0.1", "http")
    assert told["host"] == app.address.removeprefix("http://")


# --- uvicorn

_ASGI = """\
import os
VERSION = {version!r}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({{"type": "lifespan.startup.complete"}})
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    body = f"{{VERSION}} {{scope['client'][0]}} {{scope['scheme']}} {{os.environ['BULLETPROOF_RELEASE']}}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": body}})
"""


@contextmanager
def _asked_all_the_time(app: LiveApp) -> Iterator[Counter[str]]:
    """What a user who asks all the time is told, counted."""
    told: Counter[str] = Counter()
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.02):
            try:
                status, _, body = app.ask("/")
                told[f"{status} {body.split()[0]}"] += 1
            except OSError as error:
                told[f"failed: {error}"] += 1

    user = threading.Thread(target=ask)
    user.start()
    try:
        yield told
    finally:
        over.set()
        user.join()


@pytest.mark.xdist_group("uvicorn")
def test_an_asgi_app_runs_under_uvicorn(make_app: Callable[[str], LiveApp]) -> None:
    """`server = "uvicorn"` deploys an ASGI app and switches to its next release without a failed request."""
    app = make_app("asgi")
    shutil.rmtree(app.folder)
    workshop.commit(app.folder, {"main.py": _ASGI.format(version="one"), "requirements.txt": "uvicorn\n"})
    app.settings["app"] = {"server": "uvicorn", "entry": "main:app"}
    app.configure()
    first = app.deploy().release
    assert app.ask("/")[2] == f"one 127.0.0.1 http {first}"

    workshop.commit(app.folder, {"main.py": _ASGI.format(version="two")})
    with _asked_all_the_time(app) as told:
        second = app.deploy().release

    assert app.ask("/")[2] == f"two 127.0.0.1 http {second}"
    assert told.keys() == {"200 one", "200 two"}
    assert app.database.parent.exists() is False or not app.database.exists()


def test_the_settings_are_for_their_owner_alone(app: LiveApp) -> None:
    """The settings, their copies and the folders that hold them can be read by nobody else."""
    files = [app.layout.environment, *app.layout.frozen_settings.iterdir()]

    assert len(files) > 1
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert {stat.S_IMODE(file.parent.stat().st_mode) for file in files} == {0o700}
    assert {file.stat().st_uid for file in files} == {os.getuid()}
