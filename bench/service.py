"""A stand-in for a systemd unit of `Type=simple` with `Restart=always` and `RestartSec=10`."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

_RESTART_SECONDS = 10.0
"""RestartSec of the guide's unit; a crash alone waits for it, `systemctl restart` does not."""
_STOP_SECONDS = 90.0
"""systemd's default TimeoutStopSec; then SIGKILL."""


class Service:
    """One process that is started again when it ends without having been asked to."""

    def __init__(self, argv: tuple[str, ...], *, folder: Path, environment: Mapping[str, str], log: Path) -> None:
        self._argv = argv
        self._folder = folder
        self._environment = environment
        self._log = log
        self._change = threading.Lock()
        self._is_asked_to_end = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher = threading.Thread()

    @property
    def is_active(self) -> bool:
        """What `systemctl is-active` asks: whether the main process lives, and no more."""
        process = self._process
        return process is not None and process.returncode is None

    @property
    def pid(self) -> int:
        """The main process, as systemd has it; 0 when there is none."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start it and return at once, as `Type=simple` does: whether it listens is nobody's question."""
        self._is_asked_to_end.clear()
        self._process = self._spawn()
        self._watcher = threading.Thread(target=self._watch, args=(self._process,), daemon=True)
        self._watcher.start()

    def restart(self) -> None:
        """SIGTERM to the main process, wait for its end, start it."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """SIGTERM to the main process and wait for its end; does nothing when it does not run."""
        if not self._watcher.is_alive():
            return
        with self._change:
            self._is_asked_to_end.set()
            process = self._process
        assert process is not None  # noqa: S101  its watcher lives
        if process.returncode is None:
            process.terminate()
        self._watcher.join(_STOP_SECONDS)
        if self._watcher.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
            self._watcher.join()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Start it again after each crash, until asked to end."""
        while True:
            process.wait()
            self._is_asked_to_end.wait(_RESTART_SECONDS)
            with self._change:
                if self._is_asked_to_end.is_set():
                    return
                process = self._process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._argv,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
