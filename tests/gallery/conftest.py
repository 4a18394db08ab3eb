"""The same host and the same `init` as in the ring `embedded`."""

from __future__ import annotations

from embedded.conftest import house, init_app, lay_app

__all__ = ["house", "init_app", "lay_app"]
