"""Set-up: this very Bulletproof on a host that only has OpenSSH and a python3, with no network needed there."""

from __future__ import annotations

import inspect
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import msgspec
from packaging.tags import cpython_tags
from uv import find_uv_bin

from bulletproof import __version__
from bulletproof.effects import engine_host
from bulletproof.effects.here import HereHost
from bulletproof.effects.process import Completed, last_lines
from bulletproof.effects.ssh import SshHost
from bulletproof.effects.uv import find_uv
from bulletproof.effects.wheels import Wheel, digest_of, packed, wheels_in, wheels_of_here
from bulletproof.errors import LockHeld, Refused, StepFailed

OLDEST_PYTHON = (3, 11)
_DIGITS = 12
"""Of the digest in an engine's name: enough that no two builds of a version share one."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a host has, as it tells itself."""

    python: tuple[int, int, int]
    machine: str
    system: str
    libc: tuple[str, str]
    engines: tuple[str, ...]
    current: str | None
    busy: tuple[str, ...]
    folder: str
    is_server: bool = False
    """Whether it is a machine that systemd runs, seen by root."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    error: str = ""
    busy: str = ""
    removed: tuple[str, ...] = ()


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """This Bulletproof, as it can be brought to a host."""

    wheels: tuple[Wheel, ...]

    @property
    def name(self) -> str:
        """Its version, and what it is made of: no two that differ have one name."""
        return f"{__version__}-{digest_of(self.wheels)[:_DIGITS]}"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a set-up would do to a host."""

    seen: Seen
    engine: str
    """The name of the engine that it brings."""

    @property
    def lines(self) -> tuple[str, ...]:
        """Each change in words; none when the host is as it should be."""
        if self.seen.current == self.engine:
            return ()
        what = f"Bulletproof {__version__} with its packages, in Python {self._python}"
        make = f"make {self.seen.folder}/{self.engine}: {what}"
        before = f", and no more to {self.seen.current}" if self.seen.current else ""
        return (*([make] if self.is_new else []), f"let {self.seen.folder}/current lead to it{before}")

    @property
    def is_new(self) -> bool:
        """Whether the host does not have the engine at all."""
        return self.engine not in self.seen.engines

    @property
    def _python(self) -> str:
        return ".".join(map(str, self.seen.python))


def look(host: SshHost | HereHost, root: str) -> Seen:
    """Ask a host what it has. Raises Refused `host-without-python`, `host-python-old`, `host-not-linux`."""
    done = host.ask((*_script(), "look", root))
    try:
        seen = msgspec.json.decode(_last_line(done.output), type=Seen)
    except msgspec.MsgspecError as error:
        raise _without_python(host, done) from error
    called = host.address.called
    if seen.system != "Linux":
        raise Refused("host-not-linux", f"{called} runs {seen.system}, and Bulletproof needs Linux")
    if seen.python[:2] < OLDEST_PYTHON:
        words = f"python3 of {called} is {'.'.join(map(str, seen.python))}, and Bulletproof needs 3.11 or newer"
        raise Refused("host-python-old", words, hint="on the host: sudo apt-get install python3  (Debian 12 or newer)")
    return seen


@contextmanager
def engine_for(seen: Seen, called: str) -> Iterator[Engine]:
    """The engine for a host: made of what runs here, or of the same versions for another Python or processor.

    Raises StepFailed `engine-not-made` when the packages for that host cannot be had.
    """
    here = wheels_of_here()
    if all(_runs_on(wheel, seen) for wheel in here):
        yield Engine(wheels=here)
        return
    with tempfile.TemporaryDirectory(prefix="bulletproof-engine-") as scratch:
        folder = Path(scratch, "packages")
        _fetch(here, seen, folder, called)
        yield Engine(wheels=wheels_in(folder))


def ship(host: SshHost | HereHost, engine: Engine, change: Change, root: str, wait_seconds: float) -> tuple[str, ...]:
    """Bring the engine to the host and let it be the current one; the names of older ones that were removed.

    One that is there already, from a set-up that found a deployment, is not sent again.

    Raises LockHeld `engine-in-use` when a deployment runs for longer than `wait_seconds`: the new engine is there then,
    and the old one goes on. Raises StepFailed `engine-not-installed`.
    """
    with packed(engine.wheels, Path(find_uv_bin())) if change.is_new else nullcontext() as given:
        done = host.ask((*_script(), "install", root, engine.name, str(wait_seconds)), given)
    try:
        answer = msgspec.json.decode(_last_line(done.output), type=_Answer)
    except msgspec.MsgspecError:
        answer = _Answer(error="its python3 ended without an answer")
    if answer.busy:
        words = f"a deployment of {answer.busy} runs on {host.address.called}, so the engine was not changed"
        raise LockHeld("engine-in-use", words, hint=f"bulletproof setup --to {host.address.called} --wait 600")
    if answer.error:
        words = f"{host.address.called} could not install the engine: {answer.error}"
        raise StepFailed("engine-not-installed", words, context=last_lines(done.errors), hint="df -h on the host")
    return answer.removed


def _last_line(output: str) -> str:
    """The answer, behind whatever the shell of a login says first."""
    return output.rstrip().rpartition("\n")[2]


def _script() -> tuple[str, ...]:
    return ("python3", "-I", "-c", inspect.getsource(engine_host))


def _without_python(host: SshHost | HereHost, done: Completed) -> Refused:
    return Refused(
        "host-without-python",
        f"python3 of {host.address.called} could not be asked what there is",
        context=last_lines(done.errors or done.output),
        hint="on the host: sudo apt-get install python3",
    )


def _runs_on(wheel: Wheel, seen: Seen) -> bool:
    """Whether a wheel that is installed here can be installed there: by its Python and its processor."""
    if all(tag.endswith("-none-any") for tag in wheel.tags):
        return True
    is_same_machine = (seen.machine, seen.libc[0]) == (platform.machine(), platform.libc_ver()[0])
    known = {f"{tag.interpreter}-{tag.abi}" for tag in cpython_tags(seen.python[:2], platforms=["any"])}
    known |= {"py3-none", "py2-none"}
    fits = any("-".join(tag.split("-")[:2]) in known for tag in wheel.tags)
    return is_same_machine and fits and _libc(seen.libc) >= _needed_libc(wheel)


def _libc(version: tuple[str, str]) -> tuple[int, ...]:
    return tuple(int(part) for part in version[1].split(".") if part.isdecimal())


def _needed_libc(wheel: Wheel) -> tuple[int, ...]:
    """The oldest glibc that one of its tags names, `manylinux_2_17`; what names none needs ours at most."""
    named = [tag.partition("manylinux_")[2].split("_")[:2] for tag in wheel.tags if "manylinux_" in tag]
    return min((tuple(map(int, one)) for one in named if all(map(str.isdecimal, one))), default=())


def _fetch(here: tuple[Wheel, ...], seen: Seen, folder: Path, called: str) -> None:
    """Let uv fetch the versions that run here, for the host's Python and processor."""
    pins = [f"{wheel.name}=={wheel.version}" for wheel in here if wheel.name != "bulletproof"]
    version = ".".join(map(str, seen.python[:2]))
    libc = "gnu" if seen.libc[0] == "glibc" else "musl"
    uv = find_uv(folder.parent / "cache")
    done = uv.run(
        *("pip", "install", "--no-deps", "--only-binary", ":all:", "--target", str(folder)),
        *("--python", sys.executable, "--python-version", version),
        *("--python-platform", f"{seen.machine}-unknown-linux-{libc}", *pins),
        folder=folder.parent,
    )
    if done.status != 0:
        words = f"the packages for Python {version} on {seen.machine} of {called} could not be fetched here"
        raise StepFailed(
            "engine-not-made", words, context=last_lines(done.errors), hint="check the network, then again"
        )
