"""Owners, modes, files and logs in memory, and what systemd has read of the files."""

from __future__ import annotations

from dataclasses import dataclass, field

from bulletproof.domain.repair import Change, Note, Text


@dataclass
class FakeMender:
    """ports.Mender without a disk."""

    now: dict[str, Change] = field(default_factory=dict)
    """How each file is."""
    read: dict[str, Change] = field(default_factory=dict)
    """How each file was when they were read last."""
    notes: dict[int, Note] = field(default_factory=dict)
    rotated: list[str] = field(default_factory=list)
    damaged: tuple[str, ...] = ()
    """What is wrong with every release that was built anew."""

    def found(self, changes: tuple[Change, ...]) -> tuple[Change, ...]:
        """How each is now."""
        return tuple(self.now[one.path] for one in changes if one.path in self.now)

    def make(self, change: Change) -> None:
        """It is so from now on."""
        self.now[change.path] = change

    def reread(self) -> None:
        """From now on all that is written in files is in force."""
        self.read = {path: one for path, one in self.now.items() if isinstance(one, Text)}

    def keep(self, number: int, note: Note) -> None:
        """Remember it."""
        self.notes[number] = note

    def kept(self, number: int) -> Note | None:
        """That note."""
        return self.notes.get(number)

    def forget(self, number: int) -> None:
        """Forget it."""
        self.notes.pop(number, None)

    def damage(self, release: str) -> tuple[str, ...]:  # noqa: ARG002  the port's
        """What is wrong."""
        return self.damaged

    def rotate(self, log: str) -> None:
        """Remember it, once."""
        if log not in self.rotated:
            self.rotated.append(log)
