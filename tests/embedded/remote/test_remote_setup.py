"""`setup --to HOST`: the engine comes over SSH, in one instant, in no deployment's middle, and only when it must."""

from __future__ import annotations

import fcntl
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bulletproof import __version__
from bulletproof.effects import engine_host
from remote_host import ENGINE, RemoteHost, remote_host

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("remote-setup")]


@pytest.fixture(scope="module")
def host() -> Iterator[RemoteHost]:
    """A machine that has nothing but sshd and python3."""
    with tempfile.TemporaryDirectory(prefix="bp-bare-", dir="/tmp") as folder, remote_host(Path(folder) / "m") as host:
        yield host


@pytest.fixture(scope="module")
def ready(host: RemoteHost) -> RemoteHost:
    """The same with an engine that `setup` brought."""
    _setup(host)
    return host


def _setup(host: RemoteHost, *words: str, status: int = 0) -> str:
    """What `setup` says."""
    argv = [*host.prefix, sys.executable, "-P", "-m", "bulletproof", "setup", "--to", "far", *words]
    done = subprocess.run(
        argv, cwd=host.folder, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    return done.stderr


def _engines(host: RemoteHost) -> Path:
    return host.home / ENGINE


def _current(host: RemoteHost) -> str:
    return str((_engines(host) / "current").readlink())


def _state(host: RemoteHost) -> dict[str, int]:
    """Everything in the home by name, with when it was changed."""
    return {str(path): path.lstat().st_mtime_ns for path in host.home.rglob("*")}


def _other(host: RemoteHost, name: str) -> Path:
    """Another engine, which is whole as far as anybody can see."""
    place = _engines(host) / name
    (place / "bin").mkdir(parents=True)
    (place / "complete").write_text("")
    return place


def test_a_dry_run_says_what_it_would_change_and_changes_nothing(host: RemoteHost) -> None:
    """On a host that has nothing yet."""
    before = _state(host)
    said = _setup(host, "--dry-run")

    assert "would make" in said
    assert f"Bulletproof {__version__} with its packages" in said
    assert "would let" in said
    assert _state(host) == before


def test_an_engine_is_brought_that_works_without_a_network(ready: RemoteHost) -> None:
    """It has this very version and its packages, uv and Caddy, in an environment of its own."""
    python = _engines(ready) / "current/bin/python"
    code = (
        "import bulletproof, sys, uv; from bulletproof.adapters.caddy.program import program; from"
        " bulletproof.demo.playground import example;"
        " print(bulletproof.__version__, bulletproof.__file__, uv.find_uv_bin(), program(), example())"
    )
    version, *places = subprocess.run(
        [python, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    here = subprocess.run(
        [*ready.prefix, sys.executable, "-P", "-m", "bulletproof", "status", "--to", "far", "--app", "shop"],
        cwd=ready.folder, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert version == __version__
    for place in places:
        assert Path(place).resolve().is_relative_to(_engines(ready) / _current(ready))
    assert _current(ready).startswith(f"{__version__}-")
    assert "nothing-deployed" in here.stderr
    assert {path.name for path in _engines(ready).iterdir()} == {".setup", "current", _current(ready)}


def test_a_second_time_nothing_is_changed(ready: RemoteHost) -> None:
    """What is right stays, to the last time stamp."""
    before = _state(ready)

    assert "nothing to change: far has Bulletproof" in _setup(ready)
    assert _state(ready) == before


def test_no_engine_is_changed_in_the_middle_of_a_deployment(ready: RemoteHost) -> None:
    """The lock of an app is held: the old one goes on; with patience the new one takes its place."""
    name = _current(ready)
    _other(ready, "0.0.9-old")
    (_engines(ready) / "current").unlink()
    (_engines(ready) / "current").symlink_to("0.0.9-old")
    state = ready.root / "var/lib/bulletproof/shop"
    state.mkdir(parents=True)
    with ExitStack() as held:
        lock = held.enter_context((state / "lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = _setup(ready, status=5)
        assert "engine-in-use" in said
        assert "a deployment of shop runs on far" in said
        assert "hint: bulletproof setup --to far --wait" in said
        assert _current(ready) == "0.0.9-old"

        argv = [*ready.prefix, sys.executable, "-P", "-m", "bulletproof", "setup", "--to", "far", "--wait", "60"]
        with subprocess.Popen(argv, cwd=ready.folder, stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stderr is not None
            assert "and no more to 0.0.9-old" in waiting.stderr.readline() + waiting.stderr.readline()
            assert _current(ready) == "0.0.9-old"
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert waiting.wait(60) == 0

    assert _current(ready) == name


def test_old_engines_go_but_the_last_one_and_those_that_are_used(ready: RemoteHost) -> None:
    """A supervisor may have been started from one long ago, and starts its recoveries from there."""
    name = _current(ready)
    for number in range(4):
        _other(ready, f"0.0.{number}-x")
    _other(ready, "0.0.0-half")
    (_engines(ready) / "0.0.0-half" / "complete").unlink()
    (_engines(ready) / "current").unlink()
    (_engines(ready) / "current").symlink_to("0.0.0-x")
    used = _engines(ready) / "0.0.3-x" / "bin" / "python"
    used.symlink_to(sys.executable)
    with subprocess.Popen([used, "-S", "-c", "input()"], stdin=subprocess.PIPE) as user:
        said = _setup(ready)
        left = {path.name for path in _engines(ready).iterdir() if not path.name.startswith(".")}
        user.kill()

    assert "removed 0.0.2-x, which nothing used any more" in said
    assert left == {"current", name, "0.0.0-x", "0.0.3-x"}


def test_a_host_whose_python_is_too_old_is_told_so(ready: RemoteHost) -> None:
    """Before anything is sent to it."""
    _pretend(ready, "echo \"Welcome\"; sed 's/.*//' /dev/null; printf '%s\\n' " + _quoted(_seen(python=[3, 9, 2])))
    try:
        said = _setup(ready, status=1)
    finally:
        (ready.home / "bin/python3").unlink()

    assert "host-python-old" in said
    assert "3.9.2" in said


def test_a_host_without_python_is_told_so(ready: RemoteHost) -> None:
    """With what its shell said."""
    _pretend(ready, "echo 'python3: not found' >&2; exit 127")
    try:
        said = _setup(ready, status=1)
    finally:
        (ready.home / "bin/python3").unlink()

    assert "host-without-python" in said
    assert "python3: not found" in said


def _seen(**values: object) -> str:
    seen = {"python": [3, 11, 2], "machine": "x86_64", "system": "Linux", "libc": ["glibc", "2.36"], "engines": []}
    return json.dumps({**seen, "current": None, "busy": [], "folder": "/x", **values})


def _quoted(text: str) -> str:
    return f"'{text}'"


def _pretend(host: RemoteHost, script: str) -> None:
    """Let another python3 come first on the host."""
    place = host.home / "bin" / "python3"
    place.parent.mkdir(exist_ok=True)
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(0o755)


# --- what arrives at the host


def _install(home: Path, content: bytes) -> dict[str, object]:
    """Run the host's part alone, on what came over."""
    argv = [sys.executable, "-I", engine_host.__file__, "install", "", "9.9.9-new", "0"]
    done = subprocess.run(
        argv, input=content, env={**os.environ, "HOME": str(home)}, capture_output=True, check=True, timeout=60
    )
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def _tar(*names: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"exit"))
    return raw.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        _tar("uv")[:600],
        _tar("uv"),
        _tar("../outside"),
        _tar("/tmp/bp-outside"),  # noqa: S108
        _tar("folder/uv"),
        _tar(".hidden"),
        _tar("link", kind=tarfile.SYMTYPE),
        _tar("device", kind=tarfile.CHRTYPE),
    ],
    ids=["nothing", "cut off", "broken", "above", "absolute", "in a folder", "hidden", "link", "device"],
)
def test_what_cannot_become_an_engine_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    """Cut off, broken or hostile: an answer in words, `current` as it was, nothing half-made."""
    engines = tmp_path / ENGINE
    engines.mkdir(parents=True)
    (engines / "current").symlink_to("0.1.0-old")

    answer = _install(tmp_path, content)

    assert answer["error"]
    assert {path.name for path in engines.iterdir()} == {".setup", "current"}
    assert str((engines / "current").readlink()) == "0.1.0-old"
    assert not (tmp_path / ".local/share/bulletproof/outside").exists()
    assert not Path("/tmp/bp-outside").exists()  # noqa: S108
