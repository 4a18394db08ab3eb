"""Whether what the app stands on is well: its release, its settings, the machine, the journal."""

from __future__ import annotations

import time

from bulletproof.domain.check import Seen, Severity
from bulletproof.domain.trend import LOOKED_BACK_DAYS, lost_per_day
from bulletproof.effects.file_facts import free_inodes, is_private, mode_of
from bulletproof.effects.health_record import read_record
from bulletproof.effects.machine import clock_error, reboot_wanted_by, replaced_libraries
from bulletproof.effects.records import damaged_packages
from bulletproof.operations.checks.ground import MIB, STOPPED, Ground

_FEW_INODES = 1000
_LAST_BYTES = 1 << 20
"""Of the record: two weeks of a run each quarter of an hour."""
_WRONG_SECONDS = 1.0


def release(ground: Ground) -> Seen:
    """The live release's virtual environment is what was installed: every file of every package is there, as long."""
    manifest = ground.manifest
    bad = damaged_packages(ground.host.layout.venv(manifest.release))
    if bad:
        words = f"{len(bad)} files of its packages are not what was installed: {', '.join(bad[:3])}"
        return Seen(words=words, is_good=False, hint="bulletproof deploy")
    return Seen(words=f"{manifest.release}, {manifest.packages} packages, Python {manifest.python}")


def previous(ground: Ground) -> Seen:
    """There is a release to go back to, and it is whole."""
    name = ground.status.earlier
    if not name:
        return Seen(words="nothing to roll back to yet")
    ground.host.releases.manifest(name)
    bad = damaged_packages(ground.host.layout.venv(name))
    if bad:
        words = f"{len(bad)} files of {name} are not what was installed, so a rollback may fail: {', '.join(bad[:3])}"
        return Seen(words=words, is_good=False, hint="bulletproof deploy")
    return Seen(words=f"{name} is whole")


def settings(ground: Ground) -> Seen:
    """Settings are readable by nobody else, and none that the live release runs with is gone."""
    files = (ground.host.layout.environment, *ground.host.layout.frozen_settings.glob("*"))
    for file in files:
        if not is_private(file):
            words = f"others may read {file} ({mode_of(file)})"
            return Seen(words=words, is_good=False, hint=f"chmod 600 {file}")
    lost = sorted(set(ground.settings) - set(ground.host.settings.today())) if ground.status.live else []
    if lost:
        words = f"the live release runs with {', '.join(lost)}, which the next deployment would not have"
        return Seen(words=words, is_good=False, hint=f"bulletproof env set {lost[0]}=…", severity=Severity.WANTED)
    return Seen(words=f"{len(ground.host.settings.today())} settings, for their owner alone")


def disk(ground: Ground) -> Seen:
    """The disk has room, in bytes and in files."""
    free_bytes, least = ground.host.resources().free_disk, ground.config.require.free_disk_mib
    free, measures = free_bytes // MIB, {"free_bytes": float(free_bytes)}
    if free < least:
        words = f"{free} MiB are free, {least} are required"
        return Seen(words=words, is_good=False, hint="df -h", measures=measures)
    if 0 < (inodes := free_inodes(ground.host.layout.root)) < _FEW_INODES:
        return Seen(words=f"only {inodes} files more can be made", is_good=False, hint="df -i", measures=measures)
    return Seen(words=f"{free} MiB are free", measures=measures)


def disk_trend(ground: Ground) -> Seen:
    """The disk lasts for some days more, as it was filled in the last ones."""
    runs = read_record(ground.host.layout.health, last_bytes=_LAST_BYTES).runs
    told = [(run.at, run.free_bytes) for run in runs if run.free_bytes is not None]
    lost = lost_per_day(told, time.time())
    if lost is None:
        return Seen(words="not known before the checks by the clock have run for three days")
    if lost <= 0:
        return Seen(words=f"it was not filled in the last {LOOKED_BACK_DAYS} days")
    left = ground.host.resources().free_disk / lost
    words = f"it is filled by {lost / MIB:.0f} MiB a day: full in {left:.0f} days"
    return Seen(words=words, is_good=left >= ground.config.check.disk_days, hint="df -h")


def clock(ground: Ground) -> Seen:
    """The machine's clock is kept by a time server, as the kernel knows it."""
    del ground
    error = clock_error()
    if error is None:
        words = "no time server keeps it, as the kernel says: it may run away"
        return Seen(words=words, is_good=False, hint="timedatectl set-ntp true")
    if error > _WRONG_SECONDS:
        words = f"it may be wrong by {error:.1f} s: the time server was not reached for long"
        return Seen(words=words, is_good=False, hint="timedatectl timesync-status, or chronyc tracking")
    return Seen(words=f"kept by a time server, wrong by at most {error * 1000:.0f} ms")


def reboot(ground: Ground) -> Seen:
    """The system does not wait for a reboot."""
    del ground
    packages = reboot_wanted_by()
    if packages is None:
        return Seen(words="the system waits for none")
    why = f": {', '.join(packages)}" if packages else ""
    return Seen(words=f"the system waits for one{why}", is_good=False, hint="reboot, at a quiet hour")


def libraries(ground: Ground) -> Seen:
    """The app runs the libraries that lie on the disk."""
    family = ground.status.family
    if family is None:
        return STOPPED if not ground.status.wants_running else Seen(words="the app has no process")
    replaced = replaced_libraries(family.pids, ground.host.layout.home)
    if replaced:
        words = f"the app still runs what was replaced: {', '.join(replaced[:3])}"
        return Seen(words=words, is_good=False, hint="bulletproof restart")
    return Seen(words="the app runs those that lie on the disk")


def deployments(ground: Ground) -> Seen:
    """No deployment was left half-done."""
    status = ground.status
    if status.unfinished is not None and not status.is_held:
        words = f"deployment {status.unfinished.deployment.number} was left unfinished"
        return Seen(words=words, is_good=False, hint="bulletproof recover")
    if status.holder is not None:
        return Seen(words=f"one is at work: {status.holder.in_words()}")
    return Seen(words=f"the last was {status.last.outcome}" if status.last else "none yet")
