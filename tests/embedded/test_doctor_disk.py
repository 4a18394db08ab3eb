"""`doctor` on a disk that is really full: what may go is told with its size, is freed, and all is green again."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import workshop
from bulletproof.demo.traffic import Load, Traffic
from embedded.examining import examined
from free_ports import free_port
from live_app import new_app

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("undo-disk"), pytest.mark.timeout(600)]

_LEAST_MIB = 30
_READS = Load(clients=2, rate=20, slow_clients=0, write_share=0.0)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own that is full soon."""
    with workshop.small_disk(mebibytes=400) as folder:
        yield folder


def _fill(folder: Path) -> None:
    """Take all of the disk, to the last byte."""
    with contextlib.suppress(OSError), (folder / "ballast").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    assert os.statvfs(folder).f_bavail == 0


def test_a_full_disk_is_freed(small_disk: Path, project: Path) -> None:
    """No byte is left; what can be made again goes, what is a person's is told with its size and stays."""
    app = new_app(small_disk / "root", project, "doctor-disk", port=free_port())
    app.settings["require"] = {"free_disk_mib": _LEAST_MIB}
    app.configure()
    try:
        app.deploy("v1")
        app.run("backup", "create", status=0)
        (app.layout.backups / "b1" / "more").write_bytes(bytes(3 << 20))
        with Traffic.start(app.address, Path(tempfile.gettempdir()), _READS) as traffic:
            _fill(small_disk)
            told = app.run("doctor")
            mended = app.run("doctor", "--fix", "--yes", "--only", "disk")
            report = traffic.report(traffic.began)
        traffic.path.unlink()
        traffic.path.with_suffix(".err").unlink()

        assert (told.status, f"0 MiB of disk are free, and {_LEAST_MIB} are required" in told.out) == (2, True), told
        size = re.search(r"(\d+) MiB  the cache of builds: --fix removes it", told.out)
        assert size, told.out
        assert re.search(r" 3 MiB  backups: bulletproof backup prune, in ", told.out), told.out
        assert f"--fix would: remove what can be made again, {size[1]} MiB" in told.out
        assert (mended.status, "cache emptied" in mended.err) == (0, True), mended
        assert report.failed == 0, report.failures
        freed = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize >> 20
        assert freed > int(size[1]) - 5
        assert (app.layout.backups / "b1" / "more").exists()
        assert "disk" not in examined(app)
        (small_disk / "ballast").unlink()
        app.deploy("v2")
        _fill(small_disk)
        app.run("stop", status=0)
    finally:
        (small_disk / "ballast").unlink(missing_ok=True)
        app.end()
