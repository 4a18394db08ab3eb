"""What is known of an app that was deployed: its configuration, and as whom it runs, whatever became of its files."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from bulletproof.adapters.releases import BuiltReleases
from bulletproof.domain.config import AppConfig
from bulletproof.domain.deployment import Live
from bulletproof.domain.layout import Layout
from bulletproof.effects.ownership import user_of_group
from bulletproof.engine.journal import Journal
from bulletproof.errors import StepFailed
from bulletproof.operations.detect import find_entry


def is_server(root: Path) -> bool:
    """Whether this root is that of a server, whose processes are systemd's and belong to users of their own."""
    return root == Path("/")


def config_of(layout: Layout, release: str) -> AppConfig | None:
    """The configuration that a release was built with, whatever became of it since; None when nobody can tell."""
    try:
        return BuiltReleases(layout, find_entry).recorded(release).config
    except StepFailed:
        return None


def known_config(layout: Layout, lived: Sequence[Live], otherwise: AppConfig | None = None) -> AppConfig:
    """The configuration of the last of these that can be read; where none can, `otherwise` or what is left to know.

    As whom the app runs is told by the data then: root must not hand them to another because a release is damaged.
    """
    for live in reversed(lived):
        if found := config_of(layout, live.release):
            return found
    known = otherwise or AppConfig(name=layout.app)
    user = user_of_group(layout.data) if is_server(layout.root) else None
    return replace(known, app=replace(known.app, user=user)) if user else known


def was_begun(layout: Layout) -> bool:
    """Whether a deployment of the app ever began here since it was last destroyed, so that its places are its own."""
    journal = Journal.glance(layout.journal)
    if journal is None:
        return False
    with contextlib.closing(journal):
        return bool(journal.entries())


def user_of(layout: Layout) -> str | None:
    """As whom an app of a server runs; None when it was never live."""
    journal = Journal.glance(layout.journal)
    if journal is None:
        return None
    with contextlib.closing(journal):
        lived = journal.lived()
    return known_config(layout, lived).app.user if lived else None
