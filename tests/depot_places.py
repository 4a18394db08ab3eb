"""The real places that a depot can be at, each of which a test can break off and mend."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bulletproof.adapters.depots import open_depot
from bulletproof.effects.depot import Depot
from bulletproof.errors import StepFailed
from remote_host import RemoteHost
from s3_server import BUCKET, KEYS, S3Server
from slow_line import Line

MIB = 1 << 20
_SECONDS = 60.0
_PUT = """
import pathlib, sys
from bulletproof.adapters.depots import open_depot
open_depot(sys.argv[1], {}).put(pathlib.Path(sys.argv[2]), sys.argv[3])
"""


class Place(ABC):
    """A place, and what can happen to it."""

    can_go_on_putting = False
    """Whether a put that was broken off is gone on with, and not only done again."""

    @abstractmethod
    def url(self) -> str:
        """Its address."""

    def secrets(self) -> Mapping[str, str]:
        """What it asks for."""
        return {}

    @property
    def depot(self) -> Depot:
        """The depot there."""
        return open_depot(self.url(), self.secrets())

    @abstractmethod
    def break_off_put(self, file: Path, name: str) -> None:
        """Begin to put a large file, and kill whoever takes it in the middle."""

    @abstractmethod
    def break_off_get(self, name: str, file: Path) -> StepFailed:
        """Begin to get a large file, and let the place be gone in the middle, and at each further try."""

    @abstractmethod
    def mend(self) -> None:
        """Let it be there again."""

    @abstractmethod
    @contextlib.contextmanager
    def cut_once(self, after_bytes: int) -> Iterator[None]:
        """Break the connection once when so much has passed."""

    @abstractmethod
    @contextlib.contextmanager
    def counted(self) -> Iterator[Callable[[], int]]:
        """Yield what tells how many bytes have passed since."""


class _ByLine(Place):
    """A place behind a line."""

    line: Line

    @abstractmethod
    def _kill(self) -> None: ...

    def break_off_put(self, file: Path, name: str) -> None:
        """Kill the server when 22 MiB have passed."""
        self._break_off(lambda: self.depot.put(file, name))

    def break_off_get(self, name: str, file: Path) -> StepFailed:
        """Kill the server when 22 MiB have passed."""
        return self._break_off(lambda: self.depot.get(name, file))

    def _break_off(self, action: Callable[[], None]) -> StepFailed:
        self.line.calm()
        self.line.bytes_per_second = 25 * MIB
        with ThreadPoolExecutor(1) as pool:
            doing = pool.submit(action)
            wait_until(lambda: self.line.passed > 22 * MIB)
            self._kill()
            error = doing.exception(_SECONDS)
        assert isinstance(error, StepFailed), error
        assert error.reference == "offsite-failed"
        return error

    @contextlib.contextmanager
    def cut_once(self, after_bytes: int) -> Iterator[None]:
        """Cut the line once."""
        self.line.calm()
        self.line.cut_after = after_bytes
        yield
        assert self.line.cuts == 1

    @contextlib.contextmanager
    def counted(self) -> Iterator[Callable[[], int]]:
        """Count on the line."""
        self.line.calm()
        yield lambda: self.line.passed


class S3Place(_ByLine):
    """A bucket of a real server."""

    def __init__(self, server: S3Server, line: Line) -> None:
        self.server = server
        self.line = line

    def url(self) -> str:
        """Its address."""
        return f"s3://{BUCKET}/off site/ü"

    def secrets(self) -> Mapping[str, str]:
        """Its keys, and what else an app has for settings."""
        return {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.line.port}", "OTHER": "no matter"}

    def _kill(self) -> None:
        self.server.kill()

    def mend(self) -> None:
        """Let it listen again."""
        self.line.calm()
        self.server.start()


class SftpPlace(_ByLine):
    """A folder of a host with a real sshd."""

    can_go_on_putting = True

    def __init__(self, host: RemoteHost, line: Line) -> None:
        self.host = host
        self.line = line
        self.folder = host.folder / "off site ü"

    def url(self) -> str:
        """Its address."""
        return f"sftp://127.0.0.1:{self.line.port}{self.folder}"

    def _kill(self) -> None:
        self.host.stop()

    def mend(self) -> None:
        """Let it listen again."""
        self.line.calm()
        self.host.start()


class FolderPlace(Place):
    """A folder of a real file system."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self._read = os.pread

    def url(self) -> str:
        """Its address."""
        return f"file://{self.folder}"

    def break_off_put(self, file: Path, name: str) -> None:
        """Kill the process that copies, when half of the file has come to it."""
        pipe = file.with_name("pipe")
        os.mkfifo(pipe)
        child = subprocess.Popen([sys.executable, "-c", _PUT, self.url(), str(pipe), name])
        with pipe.open("wb") as giving, file.open("rb") as reading:
            giving.write(reading.read(file.stat().st_size // 2))
            giving.flush()
            child.send_signal(signal.SIGKILL)
            child.wait(timeout=20)
        pipe.unlink()

    def break_off_get(self, name: str, file: Path) -> StepFailed:
        """Let the disk fail from the third piece on, as one behind a network does."""
        left = [2]

        def failing(descriptor: int, length: int, offset: int) -> bytes:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return self._read(descriptor, length, offset)

        self.monkeypatch.setattr(os, "pread", failing)
        with pytest.raises(StepFailed) as raised:
            self.depot.get(name, file)
        assert raised.value.reference == "offsite-failed"
        return raised.value

    def mend(self) -> None:
        """Let the disk be read again."""
        self.monkeypatch.setattr(os, "pread", self._read)

    @contextlib.contextmanager
    def cut_once(self, after_bytes: int) -> Iterator[None]:
        """Let the disk fail once, as one behind a network does whose server was started anew."""
        is_cut: list[bool] = []

        def cut(descriptor: int, length: int, offset: int) -> bytes:
            if offset >= after_bytes and not is_cut:
                is_cut.append(True)
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return self._read(descriptor, length, offset)

        self.monkeypatch.setattr(os, "pread", cut)
        yield
        assert is_cut
        self.mend()

    @contextlib.contextmanager
    def counted(self) -> Iterator[Callable[[], int]]:
        """Count what is read."""
        passed: list[int] = []

        def counting(descriptor: int, length: int, offset: int) -> bytes:
            piece = self._read(descriptor, length, offset)
            passed.append(len(piece))
            return piece

        self.monkeypatch.setattr(os, "pread", counting)
        yield lambda: sum(passed)
        self.mend()


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for what must come soon."""
    deadline = time.monotonic() + _SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
