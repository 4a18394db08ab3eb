"""A real S3 server on loopback: SeaweedFS, which checks signatures and keeps what it was given when it is killed.

It is there in 3 seconds. moto, the other one that Python can install, takes any key and forgets all when it ends.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from free_ports import free_port

BUCKET = "backups"
KEYS: Mapping[str, str] = {"AWS_ACCESS_KEY_ID": "AKBULLETPROOF", "AWS_SECRET_ACCESS_KEY": "p7Wd/secret+of+s3/9sJq"}
_WEED = Path(sys.executable).with_name("weed")
_SECONDS = 60.0
_SOCKETS = Path("/tmp")  # noqa: S108  it lays sockets there whatever it is told


@dataclass(slots=True)
class S3Server:
    """The server; all that it keeps lies in `folder`."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """Where it speaks S3."""
        return self.ports["s3"]

    def start(self) -> None:
        """Start it, and return when it takes requests."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        for name in ("s3", "master", "volume", "filer"):
            for part in (name, f"{name}.grpc"):
                self.ports.setdefault(part, free_port())
        actions = ["Read", "Write", "List", "Tagging"]  # an Admin's first file would make a bucket that is missing
        keys = {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
        identities = {"identities": [{"name": "shop", "credentials": [keys], "actions": actions}]}
        (self.folder / "s3.json").write_text(json.dumps(identities))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._argv(), env={**os.environ, "HOME": str(self.folder)}, stdout=log, stderr=log
            )
        self._wait()
        self.make_bucket(BUCKET)

    def kill(self) -> None:
        """End it as a power cut would end its process; idempotent."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(timeout=20)
            self.process = None
        for port in self.ports.values():
            for socket in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink(missing_ok=True)

    def make_bucket(self, name: str) -> None:
        """Make a bucket, if need be."""
        assert self._status("filer", "POST", f"/buckets/{name}/") in {200, 201, 409}

    def fill(self, bucket: str) -> None:
        """Let a bucket be full, as one with a quota is."""
        commands = f"s3.bucket.quota -name={bucket} -op=set -sizeMB=1\ns3.bucket.quota.enforce -apply\n"
        master = f"127.0.0.1:{self.ports['master']}.{self.ports['master.grpc']}"
        deadline = time.monotonic() + _SECONDS
        while b"read only" not in self._shell(master, commands):  # volumes tell their size every few seconds
            assert time.monotonic() < deadline, "the bucket does not become full"
            time.sleep(0.5)

    def _shell(self, master: str, commands: str) -> bytes:
        argv = [str(_WEED), "shell", f"-master={master}"]
        done = subprocess.run(argv, input=commands.encode(), capture_output=True, timeout=60, check=True)
        return done.stdout

    def _argv(self) -> list[str]:
        ports = [f"-{name}.port{'.grpc' if kind else ''}={port}" for (name, _, kind), port in self._named()]
        return [
            *(str(_WEED), "server", f"-dir={self.folder}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *("-master.telemetry=false", "-master.electionTimeout=1s", "-filer"),
            *("-s3", f"-s3.config={self.folder}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-volume.max=50", "-master.volumeSizeLimitMB=64", *ports),
        ]

    def _named(self) -> list[tuple[tuple[str, str, str], int]]:
        return [(name.partition("."), port) for name, port in self.ports.items()]

    def _wait(self) -> None:
        deadline = time.monotonic() + _SECONDS
        # The filer answers when it has found the master, S3 when it has found the filer.
        while not (self._status("filer", "GET", "/") == 200 and self._status("s3", "GET", "/") == 403):
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.1)
        while b'"fid"' not in self._asked("master", "GET", "/dir/assign")[1]:
            assert time.monotonic() < deadline, "no volume takes files"
            time.sleep(0.1)

    def _status(self, name: str, verb: str, path: str) -> int:
        return self._asked(name, verb, path)[0]

    def _asked(self, name: str, verb: str, path: str) -> tuple[int, bytes]:
        """The status and the body, 0 when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=10)
        try:
            connection.request(verb, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()
