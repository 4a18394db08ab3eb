"""The reference pages are what the code says."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from bulletproof.cli.main import VERBS

ROOT = Path(__file__).parents[2]


def _pages() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.pages()
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", ["cli.md", "configuration.md", "errors.md"])
def test_the_page_is_current(name: str) -> None:
    """Each reference page is what tools/reference.py writes from today's code."""
    written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")

    assert written == _pages()[name], "run python tools/reference.py"


def test_every_hint_names_a_verb_that_exists() -> None:
    """A hint that begins with `bulletproof` names a verb of the command line, so that typing it works."""
    for path in (ROOT / "src" / "bulletproof").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                for text in (n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)):
                    words = text.split() if isinstance(text, str) else []
                    if words[:1] == ["bulletproof"] and len(words) > 1 and not words[1].startswith("-"):
                        assert words[1] in VERBS, f"{path.name}: {words}"
