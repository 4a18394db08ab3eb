"""The workflows are ones that GitHub takes and zizmor finds nothing in; what a person changed in them is kept."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

import workshop
from bulletproof.cli.main import bulletproof
from bulletproof.domain.workflows import FOLDER, Wishes, scalar, workflows
from bulletproof.errors import UsageError
from bulletproof.operations.workflows import test_script as script_of

_BIN = Path(sys.executable).parent
_CONFIG = 'name = "shop"\n[hosts]\nprod = "deploy@example.org:2222"\n'
_ODD = Wishes(
    app="shop", host="prod.eu_1", branch="release/1.x", package="bulletproof @ git+https://example.org/x?a='b'",
    version="0.1.0", folder="apps/my shop", tests=("python -c 'print(\"${x}\")'", "true: && : # no comment"),
)  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with tests in a repository."""
    folder = tmp_path / "app"
    files = {"bulletproof.toml": _CONFIG, "requirements.txt": "flask\n", "tests/test_app.py": "", "run.py": ""}
    workshop.commit(folder, files)
    monkeypatch.chdir(folder)
    return folder


def _ci(*words: str) -> Result:
    return CliRunner().invoke(bulletproof, ["ci", "github", *words], catch_exceptions=False)


@pytest.mark.parametrize("wishes", [None, _ODD], ids=["usual", "odd"])
def test_they_are_valid_and_nothing_is_found_in_them(project: Path, wishes: Wishes | None) -> None:
    """By the schema of GitHub's workflows, and by zizmor in its most pedantic mood."""
    _ci()
    folder = project / FOLDER
    for name, text in workflows(wishes).items() if wishes else ():
        (folder / name).write_text(text)
    files = sorted(map(str, folder.iterdir()))
    schema = [str(_BIN / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *files]
    zizmor = [str(_BIN / "zizmor"), "--offline", "--persona", "pedantic", "--no-progress", *files]
    for argv in (schema, zizmor):
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    assert len(files) == 4


@pytest.mark.parametrize("wishes", [None, _ODD], ids=["usual", "odd"])
def test_every_script_is_one_and_takes_values_from_its_environment(project: Path, wishes: Wishes | None) -> None:
    """No expression is put into a script's text, no action is used, and a shell can read each of them."""
    _ci()
    texts = workflows(wishes) if wishes else {path.name: path.read_text() for path in (project / FOLDER).iterdir()}
    for text in texts.values():
        scripts = re.findall(r"^( +)run: \|\n((?:\1  .*\n|\n)+)", text, re.MULTILINE)
        assert scripts
        for _, script in scripts:
            assert "${{" not in script
            subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        assert "uses:" not in text
        assert "permissions: {}" in text


def test_one_deployment_at_a_time_and_never_cancelled() -> None:
    """Nor is a rollback."""
    texts = workflows(_ODD)

    assert "group: bulletproof-shop-prod.eu_1\n      cancel-in-progress: false" in texts["bulletproof-deploy.yml"]
    assert "cancel-in-progress: true" not in texts["bulletproof-deploy.yml"] + texts["bulletproof-rollback.yml"]
    for name in ("bulletproof-deploy.yml", "bulletproof-rollback.yml"):
        assert texts[name].count("cancel-in-progress: false\n      queue: max") == 1, "GitHub cancels what waits"


def test_what_changes_the_host_is_the_step_itself() -> None:
    """GitHub asks only the process to end that the step began with; a shell there would keep that to itself."""
    texts = workflows(_ODD)
    changing = [
        line for text in texts.values() for line in text.splitlines() if re.search(r"(deploy|rollback) --to", line)
    ]

    assert len(changing) == 4
    assert all(line.strip().startswith("exec bulletproof ") for line in changing)


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("${{ secrets.BULLETPROOF_SSH_KEY }}")
@example("true")
@example("on")
@example("two\nlines: #\u2028\x85\U0001f600'\"")
def test_a_value_is_text_to_yaml_and_to_github(value: str) -> None:
    """Whatever is in it, it comes back as it was, and nothing of it is an expression."""
    told = YAML(typ="safe", pure=True).load(f"key: {scalar(value)}\n")["key"]
    outside = told.replace("${{ '${{' }}", "")

    assert told.replace("${{ '${{' }}", "${{") == value
    assert "${{" not in outside


def test_a_file_that_a_person_changed_is_kept(project: Path) -> None:
    """All of them are, until somebody says that they are to go; what nobody changed is written anew."""
    first = _ci()
    again = _ci()
    other = _ci("--branch", "trunk")
    file = project / FOLDER / "bulletproof-deploy.yml"
    changed = file.read_text().replace("timeout-minutes: 60", "timeout-minutes: 90")
    file.write_text(changed)
    before = {path: path.read_text() for path in file.parent.iterdir()}
    with pytest.raises(UsageError, match="was changed by a person") as refused:
        _ci("--branch", "main")

    assert first.stderr.count("written ") == 4
    assert "bulletproof keys add github --can deploy,rollback,status --new --to prod" in first.stderr
    assert "ssh-keygen -F '[example.org]:2222'" in first.stderr
    assert again.stderr.count("as it was") == 4
    assert other.stderr.count("written anew") == 1
    assert refused.value.reference == "workflow-changed"
    assert {path: path.read_text() for path in file.parent.iterdir()} == before
    assert "written anew" in _ci("--force").stderr


def test_which_host_is_meant_must_be_clear(project: Path) -> None:
    """The only one, or the one that is named."""
    (project / "bulletproof.toml").write_text('name = "shop"\n[hosts]\naa = "x@a.org"\nbb = "x@b.org"\n')
    with pytest.raises(UsageError, match="has 2 names"):
        _ci()
    with pytest.raises(UsageError, match="c is not among"):
        _ci("--host", "c")
    assert _ci("--host", "bb").exit_code == 0
    assert "environment: bb\n" in (project / FOLDER / "bulletproof-deploy.yml").read_text()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"tests/test_x.py": "", "requirements.txt": "flask"}, "-r requirements.txt pytest"),
        (
            {"test_x.py": "", "requirements.txt": "flask", "requirements-dev.txt": "pytest>=8"},
            "-r requirements-dev.txt",
        ),
        ({"tests/x.py": "", "manage.py": "", "requirements.txt": "django"}, "manage.py test"),
        ({"tests/x.py": "", "uv.lock": ""}, "run --frozen python -m pytest"),
        ({"tests/x.py": "", "pyproject.toml": ""}, "install --quiet --disable-pip-version-check . pytest"),
        ({"app.py": ""}, ""),
    ],
    ids=["requirements", "dev-requirements", "django", "uv", "pyproject", "none"],
)
def test_the_tests_are_found(tmp_path: Path, files: dict[str, str], words: str) -> None:
    """And how they are prepared, by the list that is there."""
    found = "\n".join(script_of(workshop.write(tmp_path / "app", files)))

    assert words in found
    assert bool(found) is bool(words)
