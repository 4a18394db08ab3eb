"""A settings store in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from bulletproof.domain.settings import Settings


@dataclass
class FakeSettings:
    """Settings that keep nothing of their giver's dictionaries."""

    _today: Settings = field(default_factory=dict)
    _copies: dict[int, Settings] = field(default_factory=dict)

    def today(self) -> Settings:
        """What the next deployment takes."""
        return dict(self._today)

    def write(self, settings: Settings) -> None:
        """Replace what the next deployment takes."""
        self._today = dict(settings)

    def freeze(self, number: int, settings: Settings) -> None:
        """Keep deployment `number`'s own copy."""
        self._copies[number] = dict(settings)

    def frozen(self, number: int) -> Settings:
        """Deployment `number`'s own copy; empty when there is none."""
        return dict(self._copies.get(number, {}))

    def discard(self, number: int) -> None:
        """Forget the copy."""
        self._copies.pop(number, None)

    def numbers(self) -> tuple[int, ...]:
        """The deployments that have a copy."""
        return tuple(sorted(self._copies))
