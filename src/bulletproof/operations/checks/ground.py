"""What all checks look at, and what one is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from bulletproof.domain.check import Seen, Severity, Unseen
from bulletproof.domain.config import AppConfig
from bulletproof.domain.deployment import Live
from bulletproof.domain.settings import for_app
from bulletproof.domain.web import app_environment, database_setting
from bulletproof.errors import StepFailed
from bulletproof.operations.status import Status
from bulletproof.ports import Host, Manifest

PATIENCE_SECONDS = 5.0
"""A look that takes longer is unknown, never ok."""
MIB = 1 << 20
STOPPED = Seen(words="it was stopped by a person")
NO_DATABASE = Seen(words="the app has no database here")


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What all checks look at."""

    host: Host
    status: Status
    config: AppConfig
    """The live release's, as far as that can be read."""
    lived: tuple[Live, ...] = ()
    """All that were live, oldest first, the live one last."""

    @property
    def manifest(self) -> Manifest:
        """What is live. Raises StepFailed when it is damaged, or nothing is."""
        if self.status.live is None:
            raise StepFailed("nothing-deployed", "nothing was ever live")
        return self.host.releases.manifest(self.status.live.release)

    @property
    def number(self) -> int:
        """The live deployment; 0 when nothing is live."""
        return self.status.live.number if self.status.live else 0

    @property
    def settings(self) -> Mapping[str, str]:
        """Those that the live release runs with."""
        return self.host.settings.frozen(self.number)

    def require_safe_data(self) -> None:
        """Raise Unseen while the app could lead who opens its data elsewhere."""
        if words := self.host.unsafe_data():
            raise Unseen(f"it was not opened, since {words}")

    @property
    def environment(self) -> dict[str, str]:
        """All that a process of the live release gets, as a timer of it does."""
        settings, layout = self.settings, self.host.layout
        database = database_setting(settings, layout, self.config)
        return {**for_app(settings), **app_environment(layout, self.number, self.manifest.release, database)}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One look. What mends a finding belongs beside `look`, by the same name."""

    look: Callable[[Ground], Seen]
    severity: Severity = Severity.REQUIRED
    patience_seconds: float = PATIENCE_SECONDS
    opens_data: bool = False
    """Whether it opens files of the data, which it does not while the app could lay a link there."""
