"""Every patch in releases/ applies and does what it says, under real gunicorn on a unix socket."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil
import pytest
from form_client import PASSWORD, PROJECT

RELEASES = PROJECT / "releases"
GROWTH = ("v2", "v3", "v4-expand", "v4-contract", "destructive")
"""Each patch on top of the one before, v2 on v1."""
BROKEN = sorted(patch.stem for patch in (RELEASES / "broken").glob("*.patch"))
WITH_MIGRATION = {*GROWTH[1:], "boot-migrates", "migration-fails", "migration-too-slow"}
OWN_TESTS = {
    "v2": ("tests/test_chart_page.py", "tests/test_pages.py::test_pages_are_well_formed"),
    "v3": ("tests/test_points.py", "tests/test_api.py::test_list_charts"),
    "v4-expand": ("tests/test_display_name.py",),
    "v4-contract": ("tests/test_display_name.py", "tests/test_pages.py::test_taken_username"),
    "destructive": ("tests/test_no_dates.py", "tests/test_pages.py::test_pages_are_well_formed"),
    "broken/boot-migrates": ("tests/test_setup.py",),
    "broken/migration-fails": ("tests/test_chart_page.py",),
}
UV = Path(sys.executable).parent / "uv"
DEADLINE_SECONDS = 30
BOOT_FAILED = {3, 1}  # gunicorn's own code; 1 when a second worker fails while it is already halting
NOT_COPIED = shutil.ignore_patterns("__pycache__", ".env", ".venv", ".pytest_cache", "*.db", "*.db-*")

pytestmark = pytest.mark.skipif(not UV.exists(), reason=f"needs uv at {UV}")


@pytest.fixture(scope="session")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One virtual environment with the app's requirements, for every release that can be built."""
    folder = tmp_path_factory.mktemp("build") / "venv"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    assert install(folder, PROJECT / "requirements.txt").returncode == 0
    return folder


def install(venv: Path, requirements: Path) -> subprocess.CompletedProcess[str]:
    """Install `requirements` into `venv`."""
    # Without bytecode in the environment, each boot of each worker would compile SQLAlchemy anew.
    options = ["--compile-bytecode", "--python", venv / "bin" / "python"]
    command = [UV, "pip", "install", *options, "--requirement", requirements]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back for one request."""

    status: int
    version: str | None
    cookie: str
    text: str


class UnixConnection(HTTPConnection):
    """HTTP to a unix socket."""

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket instead of a port."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A patched copy of the app with a folder for its database, socket and log."""

    source: Path
    state: Path
    venv: Path

    @property
    def log(self) -> str:
        """All that gunicorn and the app wrote so far."""
        return (self.state / "log").read_text()

    @property
    def environment(self) -> dict[str, str]:
        """What a host gives to the app."""
        mine = {"SECRET_KEY": "only for tests", "DATABASE_URL": f"sqlite:///{self.state / 'app.db'}"}
        return {**os.environ, **mine}

    def migrate(self) -> None:
        """Bring the database to this release's schema."""
        command = [self.venv / "bin" / "flask", "--app", "run", "db", "upgrade"]
        subprocess.run(command, cwd=self.source, env=self.environment, capture_output=True, check=True)

    def ask(self, path: str, *, sent: object = None, cookie: str = "", timeout_seconds: float = 10) -> Answer:
        """GET `path`, or POST `sent` to it as JSON."""
        connection = UnixConnection(self.state / "web.sock", timeout_seconds)
        body = None if sent is None else json.dumps(sent)
        headers = {"Content-Type": "application/json", "Cookie": cookie}
        try:
            connection.request("GET" if sent is None else "POST", path, body=body, headers=headers)
            response = connection.getresponse()
            return Answer(
                status=response.status,
                version=response.headers["X-DataCharted-Version"],
                cookie=response.headers.get("Set-Cookie", "").partition(";")[0],
                text=response.read().decode(),
            )
        finally:
            connection.close()

    def answers(self) -> bool:
        """Whether /up is answered at all."""
        try:
            return bool(self.ask("/up").status)
        except (OSError, HTTPException):
            return False

    @contextmanager
    def serving(self, *options: str, workers: int = 1) -> Iterator[psutil.Popen]:
        """Run gunicorn until the block ends; then kill its master and workers, which are a process group."""
        bind = ["--bind", f"unix:{self.state / 'web.sock'}", "--workers", str(workers), "--no-control-socket"]
        command = [self.venv / "bin" / "gunicorn", *bind, *options, "run:app"]
        with (self.state / "log").open("wb") as log:
            master = psutil.Popen(
                command, cwd=self.source, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield master
        finally:
            kill_group(master)


def kill_group(master: psutil.Popen) -> None:
    """SIGKILL the process group that `master` leads, and wait until no process of it is left."""
    with suppress(ProcessLookupError):  # all of them ended by themselves
        os.killpg(master.pid, signal.SIGKILL)
    master.wait()


@pytest.fixture
def build(venv: Path, tmp_path: Path) -> Iterator[Callable[..., Release]]:
    """A function that copies the app, applies patches to it, and returns the release; all share one database."""
    # A unix socket's path has at most 107 bytes; pytest's own folders can be longer.
    with tempfile.TemporaryDirectory(prefix="dc-") as state:

        def build_release(*patches: str) -> Release:
            source = tmp_path / "-".join(["source", *patches]).replace("/", "-")
            shutil.copytree(PROJECT, source, ignore=NOT_COPIED)
            for patch in patches:
                apply(source, patch)
            return Release(source=source, state=Path(state), venv=venv)

        yield build_release


def apply(source: Path, patch: str) -> None:
    """`git apply` the patch; a warning about whitespace is an error too."""
    command = ["git", "apply", "--whitespace=error-all", RELEASES / f"{patch}.patch"]
    # Not part of any repository around it, where git would silently skip the files that are not its own.
    outside = {**os.environ, "GIT_CEILING_DIRECTORIES": os.fspath(source.parent)}
    subprocess.run(command, cwd=source, env=outside, check=True)


def patches_of(version: str) -> tuple[str, ...]:
    """The patches that make this release of v1, in order."""
    if version.startswith("broken/"):
        return ("v2", version)
    return GROWTH[: GROWTH.index(version) + 1] if version != "v1" else ()


def eventually(is_true: Callable[[], bool], *, deadline_seconds: float = DEADLINE_SECONDS) -> bool:
    """Whether `is_true` becomes true before the deadline."""
    ends = time.monotonic() + deadline_seconds
    while not is_true():
        if time.monotonic() > ends:
            return False
        time.sleep(0.05)
    return True


def use(release: Release, version: str, cookie: str = "") -> str:
    """Register (unless there is a session), store a chart and find it again, as a program does. Return the cookie."""
    assert eventually(release.answers), release.log
    up = release.ask("/up")
    assert (up.status, up.version, json.loads(up.text)) == (200, version, {"status": "ok", "version": version})
    cookie = cookie or enter(release, "register", "ann")
    stored = release.ask("/api/charts", sent={"title": f"Tea of {version}", "numbers": [1, 2]}, cookie=cookie)
    assert stored.status == 201, stored.text
    listed = json.loads(release.ask("/api/charts", cookie=cookie).text)
    assert listed["version"] == version
    newest = [listed["charts"][0][key] for key in ("id", "title", "numbers")]
    assert newest == [json.loads(stored.text)["id"], f"Tea of {version}", [1, 2]]
    assert release.ask("/charts", cookie=cookie).status == 200
    return cookie


def enter(release: Release, how: str, username: str) -> str:
    """Register or log in, and return the cookie."""
    answer = release.ask(f"/api/{how}", sent={"username": username, "password": PASSWORD})
    assert (answer.status, json.loads(answer.text)["username"]) == ({"register": 201, "login": 200}[how], username)
    return answer.cookie


def titles(release: Release, cookie: str) -> list[str]:
    """The user's charts, newest first."""
    return [chart["title"] for chart in json.loads(release.ask("/api/charts", cookie=cookie).text)["charts"]]


def test_each_patch_is_known() -> None:
    """releases/README.md has a line for every patch, and no patch is missing."""
    lines = (RELEASES / "README.md").read_text().splitlines()
    described = {line.split("`")[1] for line in lines if line.startswith("- `")}
    assert described == {patch.relative_to(RELEASES).as_posix() for patch in RELEASES.rglob("*.patch")}
    assert described == {f"{name}.patch" for name in (*GROWTH, *(f"broken/{name}" for name in BROKEN))}


def test_some_patches_migrate() -> None:
    """Only those patches that say so touch the migrations, and no two of them make the same revision."""
    patches = {patch.stem: patch.read_text() for patch in RELEASES.rglob("*.patch")}
    assert {name for name, text in patches.items() if "migrations/" in text} == WITH_MIGRATION
    revisions = [line for text in patches.values() for line in text.splitlines() if line.startswith("+revision = ")]
    assert len(set(revisions)) == len(revisions) == len(WITH_MIGRATION)


@pytest.mark.parametrize("version", [*GROWTH, *(f"broken/{name}" for name in BROKEN)])
def test_releases_name_themselves(build: Callable[..., Release], version: str) -> None:
    """Each patch applies without a warning, a broken one on v2, and its release bears its own name."""
    release = build(*patches_of(version))
    assert f'VERSION = "{Path(version).name}"' in (release.source / "app" / "version.py").read_text()


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("v1", "v2"),
        ("v2", "v3"),
        ("v3", "v4-expand"),
        ("v4-expand", "v4-contract"),
        ("v2", "broken/boot-migrates"),
    ],
)
def test_going_back_is_only_code(build: Callable[..., Release], older: str, newer: str) -> None:
    """The older release works on the database that the newer one migrated, and the newer one with what it wrote."""
    old, new = build(*patches_of(older)), build(*patches_of(newer))
    new.migrate()
    with new.serving():
        use(new, Path(newer).name)
    with old.serving():
        assert eventually(old.answers), old.log
        use(old, older, enter(old, "login", "ann"))
        use(old, older, enter(old, "register", "bob"))
    with new.serving():
        assert eventually(new.answers), new.log
        assert titles(new, enter(new, "login", "ann")) == [f"Tea of {older}", f"Tea of {Path(newer).name}"]
        assert titles(new, enter(new, "login", "bob")) == [f"Tea of {older}"]


def test_going_back_over_the_contract(build: Callable[..., Release]) -> None:
    """v3 can register nobody on v4-contract's database: it knows nothing of the name that is required there."""
    v3, contract = build(*patches_of("v3")), build(*patches_of("v4-contract"))
    contract.migrate()
    with v3.serving():
        assert eventually(v3.answers), v3.log
        assert v3.ask("/api/register", sent={"username": "ann", "password": PASSWORD}).status == 409


def test_going_back_from_destructive(build: Callable[..., Release]) -> None:
    """destructive serves; on its database v4-contract can list no chart."""
    contract, destructive = build(*patches_of("v4-contract")), build(*patches_of("destructive"))
    destructive.migrate()
    with destructive.serving():
        cookie = use(destructive, "destructive")
    with contract.serving():
        assert eventually(contract.answers), contract.log
        assert contract.ask("/api/charts", cookie=cookie).status == 500
    assert "no such column: chart.created" in contract.log


@pytest.mark.parametrize("version", OWN_TESTS)
def test_releases_pass_their_own_tests(build: Callable[..., Release], version: str) -> None:
    """A release passes the tests that come with it; its migrations make its models."""
    release = build(*patches_of(version))
    chosen = {"tests/test_setup.py::test_migrations_make_the_models", *OWN_TESTS[version]}
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *chosen]
    tested = subprocess.run(command, cwd=release.source, capture_output=True, text=True, timeout=120, check=False)
    assert tested.returncode == 0, tested.stdout


def test_boot_migrates(build: Callable[..., Release]) -> None:
    """boot-migrates leads v2's database to its own schema when it boots, without being asked."""
    build("v2").migrate()
    release = build(*patches_of("broken/boot-migrates"))
    with release.serving():
        use(release, "boot-migrates")
    assert "Running upgrade 0001 -> 0002_at_boot" in release.log


def test_missing_dependency(build: Callable[..., Release]) -> None:
    """missing-dependency cannot be installed, and the installer names what is missing."""
    release = build("v2", "broken/missing-dependency")
    installed = install(release.venv, release.source / "requirements.txt")
    assert installed.returncode != 0
    assert "datacharted-missing-dependency" in installed.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("import-error", "ImportError: cannot import name 'pie_slices' from 'app.drawing'"),
        ("crash-at-boot", "RuntimeError: REPORTS_FOLDER is not set. This release keeps its reports there"),
    ],
)
def test_releases_that_end_at_boot(build: Callable[..., Release], name: str, said: str) -> None:
    """import-error and crash-at-boot end gunicorn with an error and say why in the log."""
    release = build("v2", f"broken/{name}")
    with release.serving() as master:
        assert master.wait(timeout=DEADLINE_SECONDS) in BOOT_FAILED
    assert said in release.log


def test_answers_500(build: Callable[..., Release]) -> None:
    """answers-500 boots and answers every path with 500, with a traceback in the log."""
    release = build("v2", "broken/answers-500")
    release.migrate()
    with release.serving():
        assert eventually(release.answers), release.log
        for path in ("/", "/up", "/auth/login", "/api/whoami", "/static/style.css", "/nowhere"):
            answer = release.ask(path)
            assert (answer.status, answer.version) == (500, "answers-500"), path
    assert "Traceback (most recent call last)" in release.log
    assert "RuntimeError: This release answers every request with an error." in release.log


@pytest.mark.parametrize("name", ["never-listens", "too-slow"])
def test_releases_that_do_not_answer(build: Callable[..., Release], name: str) -> None:
    """never-listens and too-slow run on, and no answer comes."""
    release = build("v2", f"broken/{name}")
    with release.serving() as master:
        assert eventually(lambda: len(master.children()) == 1), release.log
        assert eventually((release.state / "web.sock").exists), release.log
        with pytest.raises(TimeoutError):
            release.ask("/up", timeout_seconds=2)
        assert master.is_running()
        assert "Booting worker" in release.log
        assert "Traceback" not in release.log


def test_too_slow_gets_ready(build: Callable[..., Release]) -> None:
    """too-slow boots as a good release does: it is the request that takes long."""
    release = build("v2", "broken/too-slow")
    command = [release.venv / "bin" / "python", "-c", "import run"]
    subprocess.run(command, cwd=release.source, env=release.environment, timeout=20, check=True)


def stop_signals_are_ignored(processes: list[psutil.Process]) -> bool:
    """Whether all `processes` still run a second after each of them got every signal that asks to stop."""
    for process in processes:
        for stop in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            process.send_signal(stop)
    _, alive = psutil.wait_procs(processes, timeout=1)
    return len(alive) == len(processes)


def test_ignores_sigterm(build: Callable[..., Release]) -> None:
    """ignores-sigterm answers 500, and neither its master nor a worker ends by anything but SIGKILL."""
    release = build("v2", "broken/ignores-sigterm")
    with release.serving(workers=2) as master:
        assert eventually(lambda: ready_workers(master) == 2), release.log
        processes = [psutil.Process(master.pid), *master.children()]
        assert stop_signals_are_ignored(processes)
        assert release.ask("/up").status == 500
        kill_group(master)
        assert psutil.wait_procs(processes, timeout=5)[1] == []


def ready_workers(master: psutil.Popen) -> int:
    """How many workers ignore SIGTERM, signal 15, by now: before they have loaded the app, they do not yet."""
    return sum(bool(ignored_signals(worker) & (1 << 14)) for worker in master.children())


def ignored_signals(process: psutil.Process) -> int:
    """The mask of signals that the process ignores, from the kernel; bit 0 is signal 1."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("SigIgn:")).split()[1], base=16)


def test_stubborn(build: Callable[..., Release]) -> None:
    """stubborn works as v2 does, and goes on working after its workers got every signal that asks to stop."""
    release = build("v2", "broken/stubborn")
    release.migrate()
    with release.serving() as master:
        cookie = use(release, "stubborn")
        assert stop_signals_are_ignored(master.children())
        assert release.ask("/charts/1", cookie=cookie).status == 200


@pytest.mark.parametrize("name", ["ignores-sigterm", "stubborn"])
def test_master_has_to_kill_the_workers(build: Callable[..., Release], name: str, tmp_path: Path) -> None:
    """Where the host configures gunicorn, SIGTERM to the master ends all, but by SIGKILL when its patience is over."""
    release = build("v2", f"broken/{name}")
    host_configuration = tmp_path / "host.conf.py"
    host_configuration.write_text("graceful_timeout = 2\n")
    with release.serving("--config", os.fspath(host_configuration)) as master:
        assert eventually(lambda: ready_workers(master) == 1), release.log
        workers = master.children()
        asked = time.monotonic()
        master.terminate()
        master.wait(timeout=DEADLINE_SECONDS)
        assert time.monotonic() - asked >= 1.9
        assert psutil.wait_procs(workers, timeout=5)[1] == []


def test_fills_disk(build: Callable[..., Release]) -> None:
    """fills-disk writes beside the database to 512 MiB or to a full disk, ends with ENOSPC, and removes nothing."""
    release = build("v2", "broken/fills-disk")
    junk = release.state / "datacharted-junk.bin"
    free_bytes = shutil.disk_usage(release.state).free
    with release.serving(workers=2) as master:
        assert master.wait(timeout=60) in BOOT_FAILED
    assert f"OSError: [Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}" in release.log
    assert junk.stat().st_size == 512 * 1024 * 1024 or free_bytes < 520 * 1024 * 1024
    assert junk.stat().st_size <= 512 * 1024 * 1024
