"""The health gate: probes become a verdict by a pure policy."""

from __future__ import annotations

import msgspec

_HEALTHY = range(200, 400)
_NOT_FOUND = 404
_METHOD_NOT_ALLOWED = 405
_BAD_REQUEST = 400


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What one probe saw: an HTTP status, or why there was none (`status` is 0 then)."""

    status: int
    seconds: float
    words: str = ""

    @property
    def is_healthy(self) -> bool:
        """Whether the app answered 2xx or 3xx. Not to have measured is not healthy."""
        return self.status in _HEALTHY

    def to(self, asked: str) -> str:
        """In words, what was asked and what came of it."""
        return f"{asked} answered {self.status} after {self.seconds:.1f} s" if self.status else f"{asked}: {self.words}"


class GateProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an instance has come at the gate; `passed` good rounds in a row."""

    passed: int = 0
    rounds: int = 0
    last: str = "it never answered"
    status: int = 0
    """Of that answer; 0 when there was none."""

    @property
    def is_refused_host(self) -> bool:
        """Whether the last answer is what a Django gives to a host that its ALLOWED_HOSTS lacks."""
        return self.status == _BAD_REQUEST

    def after(self, path: str, answer: Answer) -> GateProgress:
        """The progress after one more round; one bad answer begins the count again."""
        passed = self.passed + 1 if answer.is_healthy else 0
        last = answer.to(path)
        return GateProgress(passed=passed, rounds=self.rounds + 1, last=last, status=answer.status)


def falls_back_to_root(paths: tuple[str, ...], answer: Answer) -> bool:
    """Whether `/` is to be asked instead: nobody configured paths and the app has no `/up`.

    One that takes uploads at any name answers that it cannot be read with a GET.
    """
    return not paths and answer.status in {_NOT_FOUND, _METHOD_NOT_ALLOWED}
