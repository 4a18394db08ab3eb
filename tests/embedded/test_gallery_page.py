"""The gallery's page and its pictures are what `init` says today."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import gallery_page  # noqa: E402  tools/ is on no path of the tests

from gallery_apps import CASES  # noqa: E402


@pytest.fixture(scope="module")
def screens() -> dict[str, str]:
    """What `init` prints for each app."""
    return {case.name: gallery_page.screen_of(case) for case in CASES}


def test_the_page_is_current(screens: dict[str, str]) -> None:
    """Each row tells what `init` finds."""
    assert gallery_page.PAGE.read_text(encoding="utf-8") == gallery_page.page(screens), (
        "run python tools/gallery_page.py"
    )


@pytest.mark.parametrize("name", gallery_page.PICTURED)
def test_the_picture_is_current(screens: dict[str, str], name: str) -> None:
    """The whole screen, with its colours."""
    written = (gallery_page.PICTURES / f"init-{name}.svg").read_text(encoding="utf-8")
    assert written == gallery_page.picture(screens[name], name), "run python tools/gallery_page.py"
