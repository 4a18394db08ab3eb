"""A disk of one's own for a host: an ext4 in a file, that can lose its power, break, and be full."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

import msgspec

_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN (fs/ext4/ext4.h)."""
_WITHOUT_FLUSHING_THE_LOG = 2
_IMAGE_BYTES = 400 << 20
_INODES = 24_000
_UNMOUNT_SECONDS = 10.0
IN_NAMESPACE = "BULLETPROOF_PROVE_IN_NAMESPACE"
"""Says that what we mount is ours alone, and gone when we are."""


def why_not() -> str:
    """Why no disk can be made here; empty when it can."""
    if os.geteuid() != 0:
        return "only root can mount a disk"
    if not os.environ.get(IN_NAMESPACE):
        return "there is no mount namespace to do it in"
    missing = [program for program in ("mkfs.ext4", "mount", "umount") if shutil.which(program) is None]
    return f"{', '.join(missing)} is missing" if missing else ""


def namespace(argv: list[str]) -> list[str]:
    """The command that runs this one in a mount namespace of its own; empty where that is done or not possible.

    What is unmounted outside is so in there as well, so that a proof keeps nobody's disk in use.
    """
    if os.geteuid() != 0 or os.environ.get(IN_NAMESPACE) or shutil.which("unshare") is None:
        return []
    return ["env", f"{IN_NAMESPACE}=1", "unshare", "--mount", "--propagation", "slave", *argv]


class Disk(msgspec.Struct, frozen=True):
    """A file system below `place`, in the file `image`."""

    image: Path
    place: Path

    @classmethod
    def make(cls, image: Path, place: Path) -> Disk:
        """Make it and mount it."""
        place.mkdir(parents=True, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        subprocess.run(("mkfs.ext4", "-q", "-F", "-N", str(_INODES), str(image)), check=True, capture_output=True)
        disk = cls(image, place)
        disk.mount()
        return disk

    def mount(self) -> None:
        """Mount it, as a boot does: it is checked, and its log is replayed."""
        subprocess.run(("e2fsck", "-p", str(self.image)), check=False, capture_output=True)
        subprocess.run(("mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.place)), check=True)

    def unmount(self) -> None:
        """Unmount it; whoever uses it must have ended."""
        deadline = time.monotonic() + _UNMOUNT_SECONDS
        while subprocess.run(("umount", str(self.place)), check=False, capture_output=True).returncode:
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, "somebody still uses it", str(self.place))
            time.sleep(0.05)

    def cut_power(self) -> None:
        """From now on nothing reaches it, and what was not synced is lost."""
        folder = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSHING_THE_LOG))
        finally:
            os.close(folder)

    def become_read_only(self) -> None:
        """As after an error of the device: the kernel lets nobody write any more."""
        device = self.place.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("1")

    def fill(self) -> None:
        """Leave not one byte free."""
        with (self.place / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
            for size in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while filler.write(b"\0" * size):
                        pass

    def use_up_inodes(self) -> None:
        """Leave no room for one more file."""
        folder = self.place / "fillers"
        folder.mkdir()
        with contextlib.suppress(OSError):
            for number in range(_INODES):
                (folder / str(number)).touch()

    def empty(self) -> None:
        """Take back what was filled."""
        (self.place / "filler").unlink(missing_ok=True)
        shutil.rmtree(self.place / "fillers", ignore_errors=True)
