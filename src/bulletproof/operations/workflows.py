"""Workflows on disk: found out from a project what they must do, and written where no person has changed them."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from bulletproof.domain.workflows import FOLDER, Wishes, is_unchanged, workflows
from bulletproof.effects import durable
from bulletproof.errors import UsageError

_REQUIREMENTS = (
    *("requirements.txt", "requirements-dev.txt", "requirements_dev.txt", "dev-requirements.txt"),
    *("requirements-test.txt", "test-requirements.txt", "requirements/dev.txt", "requirements/test.txt"),
)


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file."""

    path: Path
    how: str
    """`written`, `written anew`, `as it was` or `kept`."""


def write_workflows(repository: Path, wishes: Wishes, *, is_forced: bool) -> tuple[Written, ...]:
    """Write all of them. Raises UsageError `workflow-changed`, with nothing written, when a person changed one."""
    folder = repository / FOLDER
    texts = {folder / name: text for name, text in workflows(wishes).items()}
    found = {path: path.read_text(encoding="utf-8") for path in texts if path.exists()}
    changed = [path.name for path, text in found.items() if text != texts[path] and not is_unchanged(text)]
    if changed and not is_forced:
        words = f"{', '.join(changed)} in {FOLDER} was changed by a person, or written by one"
        raise UsageError(
            "workflow-changed", words, hint="bulletproof ci github --force replaces it; git diff shows how"
        )
    durable.make_folder(folder)
    return tuple(_write(path, text, found.get(path)) for path, text in texts.items())


def _write(path: Path, text: str, before: str | None) -> Written:
    if before == text:
        return Written(path=path, how="as it was")
    durable.write_file(path, text)
    return Written(path=path, how="written" if before is None else "written anew")


def test_script(folder: Path) -> tuple[str, ...]:
    """How the project's tests are prepared and run, in lines of shell; none where it has no tests."""
    has_tests = any((folder / name).is_dir() for name in ("tests", "test")) or bool(
        list(folder.glob("**/test_*.py"))[:1]
    )
    if not has_tests:
        return ()
    run = "manage.py test" if (folder / "manage.py").exists() else "-m pytest"
    if (folder / "uv.lock").exists():
        return (
            'python3 -m venv "$RUNNER_TEMP/uv"',
            '"$RUNNER_TEMP/uv/bin/pip" install --quiet --disable-pip-version-check uv',
            f'"$RUNNER_TEMP/uv/bin/uv" run --frozen python {run}',
        )
    files = [name for name in _REQUIREMENTS if (folder / name).exists()]
    told = "\n".join((folder / name).read_text(errors="replace") for name in files)
    needs = [word for name in files for word in ("-r", name)]
    needs += ["."] if not files and (folder / "pyproject.toml").exists() else []
    needs += ["pytest"] if "pytest" in run and not re.search(r"^pytest\b", told, re.MULTILINE) else []
    install = (f'"$RUNNER_TEMP/tests/bin/pip" install --quiet --disable-pip-version-check {" ".join(needs)}',)
    return (
        'python3 -m venv "$RUNNER_TEMP/tests"',
        *(install if needs else ()),
        f'"$RUNNER_TEMP/tests/bin/python" {run}',
    )
