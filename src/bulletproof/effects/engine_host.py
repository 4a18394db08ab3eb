"""Brings an engine to a host that has none: sent there as text, run by its python3 with the standard library alone.

    python3 -I -c TEXT look ROOT                 what there is, as JSON
    python3 -I -c TEXT install ROOT NAME WAIT    a tar of wheels and uv by standard input becomes the engine NAME

It may run in a Python that is too old for Bulletproof, to say so. An engine appears under its own name, is tried, and
only then `current` leads to it, in one rename, while no deployment of the host runs.
"""
# ruff: noqa: PTH101, PTH103, PTH105, PTH108, PTH110, PTH111, PTH112, PTH114, PTH115, PTH118, PTH119, PTH120
# ruff: noqa: PTH123, PTH206, PTH207, PTH211, SIM115, T201  (it knows nothing but os, and talks by its output)

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time

_COMPLETE = "complete"
"""The file that is written last into an engine's folder."""
_POLL_SECONDS = 0.2
_OF_SERVER = "/opt/bulletproof/engine"
_INSTALL_SECONDS = 600


def is_server() -> bool:
    """Whether this is root of a machine that systemd runs: apps belong to users of their own there."""
    return os.geteuid() == 0 and os.path.isdir("/run/systemd/system")


def engines(root: str) -> str:
    """The folder of all engines: where every user can run them on a server, unless apps are to lie in one folder."""
    if is_server() and not root:
        return _OF_SERVER
    return home_engines()


def home_engines() -> str:
    """The folder of a user's own engines, in which a command that comes by SSH looks."""
    return os.path.join(os.path.expanduser("~"), ".local", "share", "bulletproof", "engine")


def look(root: str) -> dict[str, object]:
    """What there is."""
    folder = engines(root)
    names = sorted(os.path.basename(os.path.dirname(one)) for one in glob.glob(os.path.join(folder, "*", _COMPLETE)))
    current = os.path.join(folder, "current")
    return {
        "python": list(sys.version_info[:3]),
        "machine": platform.machine(),
        "system": platform.system(),
        "libc": list(platform.libc_ver()),
        "engines": names,
        "current": os.path.basename(os.readlink(current)) if os.path.islink(current) else None,
        "busy": [lock.split(os.sep)[-2] for lock in locks(root) if is_held(lock)],
        "folder": folder,
        "is_server": folder == _OF_SERVER,
    }


def install(root: str, name: str, wait_seconds: float) -> dict[str, object]:
    """Make the engine, if it is not there, and let `current` lead to it."""
    folder = engines(root)
    os.makedirs(folder, exist_ok=True)
    if folder != home_engines():
        lead_home_to(folder)
    with open(os.path.join(folder, ".setup"), "w", encoding="ascii") as own:
        fcntl.flock(own, fcntl.LOCK_EX)
        place = os.path.join(folder, name)
        if not os.path.exists(os.path.join(place, _COMPLETE)):
            make(place)
        current = os.path.join(folder, "current")
        former = os.readlink(current) if os.path.islink(current) else name
        switch(folder, name, root, wait_seconds)
        return {"removed": prune(folder, {name, former})}


def lead_home_to(folder: str) -> None:
    """Let a command that comes by SSH find the engines of the server where it looks for a user's own."""
    home = home_engines()
    os.makedirs(os.path.dirname(home), exist_ok=True)
    if not os.path.lexists(home):
        os.symlink(folder, home)
        sync(os.path.dirname(home))


def make(place: str) -> None:
    """Unpack what comes by standard input beside the engine's folder, and install it there."""
    incoming = place + ".incoming"
    for one in (incoming, place):
        shutil.rmtree(one, ignore_errors=True)
    os.makedirs(incoming, mode=0o700)
    try:
        receive(incoming)
        uv = os.path.join(incoming, "uv")
        os.chmod(uv, 0o700)
        common = ("--offline", "--no-cache", "--no-config", "--no-python-downloads")
        run(uv, "venv", *common, "--python", sys.executable, place)
        wheels = ("--no-index", "--find-links", incoming, "--link-mode", "copy", "--compile-bytecode")
        run(uv, "pip", "install", *common, *wheels, "--python", os.path.join(place, "bin", "python"), "bulletproof")
        run(os.path.join(place, "bin", "bulletproof"), "--version")
        with open(os.path.join(place, _COMPLETE), "w", encoding="ascii") as file:
            file.write("installed and tried\n")
        os.sync()  # all of an environment at once; nothing leads to it before
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def receive(incoming: str) -> None:
    """Lay the files of the tar: plain ones with plain names, and nothing else."""
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is None or member.name != os.path.basename(member.name) or member.name.startswith("."):
                raise ValueError(f"{member.name!r} is no file that an engine is made of")
            with content, open(os.path.join(incoming, member.name), "xb") as file:
                shutil.copyfileobj(content, file)


def run(*words: str) -> None:
    """Run a program that must succeed, its talk ours."""
    environment = {**os.environ, "UV_NO_PROGRESS": "1"}
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment, timeout=_INSTALL_SECONDS, check=False
    )
    if done.returncode != 0:
        raise OSError(f"{os.path.basename(words[0])} {words[1]} ended with status {done.returncode}")


def switch(folder: str, name: str, root: str, wait_seconds: float) -> None:
    """Let `current` lead to the engine, while we have the deployment lock of every app: so in the middle of none."""
    current = os.path.join(folder, "current")
    if os.path.islink(current) and os.readlink(current) == name:
        return
    deadline = time.monotonic() + wait_seconds
    while True:
        with contextlib.ExitStack() as held:
            busy = [lock for lock in locks(root) if not take(lock, held)]
            if not busy:
                beside = current + ".new"
                if os.path.lexists(beside):
                    os.unlink(beside)
                os.symlink(name, beside)
                os.replace(beside, current)
                sync(folder)
                return
        if time.monotonic() >= deadline:
            raise BlockingIOError(", ".join(lock.split(os.sep)[-2] for lock in busy))
        time.sleep(_POLL_SECONDS)


def locks(root: str) -> list[str]:
    """The deployment locks of all apps below a root; the default one when it is empty."""
    where = root or ("/" if is_server() else os.path.dirname(home_engines()))
    return sorted(glob.glob(os.path.join(glob.escape(where), "var", "lib", "bulletproof", "*", "lock")))


def take(lock: str, held: contextlib.ExitStack) -> bool:
    """Take a lock for as long as `held` lasts; False when somebody else has it."""
    file = held.enter_context(open(lock, "rb"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(lock: str) -> bool:
    """Whether somebody has a lock."""
    with contextlib.ExitStack() as held:
        return not take(lock, held)


def prune(folder: str, kept: set[str]) -> list[str]:
    """Remove the engines that are not to be kept, and of which no process runs; return their names."""
    found = [one for one in glob.glob(os.path.join(folder, "*")) if os.path.isdir(one) and not os.path.islink(one)]
    removed = [one for one in sorted(found) if os.path.basename(one) not in kept and not is_used(one)]
    for one in removed:
        shutil.rmtree(one)
    return [os.path.basename(one) for one in removed]


def is_used(engine: str) -> bool:
    """Whether a process was started from an engine."""
    inside = os.fsencode(engine + os.sep)
    for process in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError), open(process, "rb") as file:
            if inside in file.read():
                return True
    return False


def sync(folder: str) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(words: list[str]) -> int:
    """Do what the words say; the answer is one line of JSON, and so is an error."""
    verb, root, *rest = words
    try:
        answer = look(root) if verb == "look" else install(root, rest[0], float(rest[1]))
    except BlockingIOError as error:
        answer = {"busy": str(error)}
    except (OSError, ValueError, EOFError, tarfile.TarError, subprocess.SubprocessError) as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
