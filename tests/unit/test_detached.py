"""What is sent to a host whose disk is full begins nothing, and it is said so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import workshop
from bulletproof import __version__
from bulletproof.cli.client import Client, as_word
from bulletproof.domain.config import AppConfig
from bulletproof.domain.errand import CLIENT
from bulletproof.effects.bundle import pack
from bulletproof.effects.source import resolve


@pytest.mark.root
@pytest.mark.parametrize("verb", ["deploy", "plan"])
def test_a_bundle_that_finds_no_room_begins_nothing(tmp_path: Path, verb: str) -> None:
    """Refused with the word for a full disk; no journal, and nothing left where it was to be kept."""
    digest = "0" * 64
    with workshop.small_disk(mebibytes=4) as disk:
        if verb == "plan":
            disk.joinpath("ballast").write_bytes(b"x" * ((4 << 20) - (64 << 10)))
        variables = {**os.environ, CLIENT: as_word(Client(version=__version__, host="prod")), "TMPDIR": str(disk)}
        argv = [sys.executable, "-P", "-m", "bulletproof", "--root", str(tmp_path), verb, "--app", "shop", "--bundle"]
        given, digest = (os.urandom(8 << 20), digest) if verb == "deploy" else _bundle(tmp_path)
        done = subprocess.run([*argv, digest], input=given, env=variables, capture_output=True, check=False, timeout=60)
        left = [path.name for path in disk.iterdir() if path.name != "ballast"]

    assert done.returncode == 1, done.stderr
    assert b"disk-full" in done.stderr
    assert b"nothing was begun, and what serves is what served before" in done.stderr
    assert not (tmp_path / "var").exists() or not list((tmp_path / "var").rglob("journal.db"))
    assert left == []


def _bundle(folder: Path) -> tuple[bytes, str]:
    """A real bundle whose files are too large for the rest of the disk."""
    workshop.commit(folder / "app", {"run.py": "", "large.bin": os.urandom(1 << 20)})
    scratch = folder / "scratch"
    scratch.mkdir()
    made = pack(resolve(folder / "app"), AppConfig(name="shop"), {}, scratch)
    return made.file.read_bytes(), made.digest
