"""The reference pages are what the code says."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bulletproof.cli.main import VERBS
from bulletproof.domain.diagnoses import DIAGNOSES
from bulletproof.domain.findings import FINDINGS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def pages() -> dict[str, str]:
    """What tools/reference.py writes, asked in a process of its own: click keeps what a command was asked before."""
    script = "import json, reference; print(json.dumps(reference.pages()))"
    argv = (sys.executable, "-P", "-c", script)
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    told = subprocess.run(argv, env=surroundings, capture_output=True, text=True, check=True, timeout=60)
    return dict(json.loads(told.stdout))


FINDING_PAGES = [f"findings/{name}.md" for name in (*FINDINGS, "index")]
DIAGNOSIS_PAGES = [f"diagnoses/{name}.md" for name in (*DIAGNOSES, "index")]


@pytest.mark.parametrize("name", ["cli.md", "configuration.md", "errors.md", *FINDING_PAGES, *DIAGNOSIS_PAGES])
def test_the_page_is_current(name: str, pages: dict[str, str]) -> None:
    """Each reference page is what tools/reference.py writes from today's code."""
    written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")

    assert written == pages[name], "run python tools/reference.py"


def test_every_hint_names_a_verb_that_exists() -> None:
    """A hint that begins with `bulletproof` names a verb of the command line, so that typing it works."""
    for path in (ROOT / "src" / "bulletproof").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                for text in (n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)):
                    words = text.split() if isinstance(text, str) else []
                    if words[:1] == ["bulletproof"] and len(words) > 1 and not words[1].startswith("-"):
                        assert words[1] in VERBS, f"{path.name}: {words}"
