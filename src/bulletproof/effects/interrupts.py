"""Signals as an exception while a step can be undone, and kept waiting when it must not be disturbed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A person or the system asked us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


class Interrupts:
    """While entered, the first SIGINT, SIGTERM or SIGHUP raises Interrupted in the main thread; later ones do not.

    After `shield` none does: an undo or a finish is not to be disturbed. `expose` ends that, and raises Interrupted for
    a signal that came meanwhile. `tell` is called first, where it takes a while until all has ended.
    """

    def __init__(self, tell: Callable[[], None] = lambda: None) -> None:
        self._tell = tell
        self._is_shielded = False
        self._came_meanwhile = 0
        self._before: dict[int, object] = {}

    @property
    def is_shielded(self) -> bool:
        """Whether an undo or a finish is under way that nothing may disturb."""
        return self._is_shielded

    def shield(self) -> None:
        """From now on no signal interrupts us."""
        self._is_shielded = True

    def expose(self) -> None:
        """From now on a signal interrupts us again. Raises Interrupted for one that came while it could not."""
        self._is_shielded = False
        if self._came_meanwhile:
            self._on_signal(self._came_meanwhile, None)

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself returned

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._is_shielded:
            self._came_meanwhile = number
            return
        self._is_shielded, self._came_meanwhile = True, 0
        self._tell()
        raise Interrupted(number)
