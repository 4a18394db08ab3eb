"""`init` and `deploy` of apps that say in different ways what they depend on; each is asked what it really has."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import workshop
from live_app import Done, LiveApp
from private_index import USER, private_index

pytestmark = [pytest.mark.xdist_group("dependencies"), pytest.mark.timeout(600)]

LOCKS = Path(__file__).parents[1] / "locks"
_APP = """\
import importlib
import json
import os
from importlib.metadata import distributions, entry_points, version


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    told = {
        "packages": {one.name: one.version for one in distributions()},
        "modules": [name for name in %r if importlib.import_module(name)],
        "settings": sorted(name for name in os.environ if "IDX" in name or "INDEX" in name or "SECRET" in name),
        "commands": [one.name for one in entry_points(group="console_scripts", name="shop-hello")],
    }
    return [json.dumps(told).encode()]
"""

NewApp = Callable[..., LiveApp]


@pytest.fixture
def new_app(house: Path) -> Iterator[NewApp]:
    """Makes an app of these files, on which `init` was run and whose files were committed; ended at the end."""
    with ExitStack() as apps:
        yield lambda word, files, **extra: apps.enter_context(_initialised(house, word, files, **extra))


@contextmanager
def _initialised(
    house: Path, word: str, files: Mapping[str, str | bytes], *, entry: str = "app:app", root: str = "root"
) -> Iterator[LiveApp]:
    name = f"{word}-{secrets.token_hex(2)}"
    app = LiveApp(root=house / root, name=name, folder=house / "projects" / name / "app", port=None)
    workshop.commit(app.folder, files, "The first")
    try:
        _init(app, entry)
        yield app
    finally:
        if app.layout.journal.exists():
            app.end()


def _init(app: LiveApp, entry: str) -> Done:
    done = app.run("init", "--force", "--name", app.name, "--entry", entry, status=0)
    config = app.folder / "bulletproof.toml"
    config.write_text(f"{config.read_text()}app.workers = 1\nrequire.free_disk_mib = 1\nrequire.free_memory_mib = 1\n")
    workshop.commit(app.folder, {}, "Configure it")
    return done


def _fixture(name: str) -> dict[str, str | bytes]:
    folder = LOCKS / name
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _serving(*modules: str) -> str:
    return _APP % (modules,)


def _told(app: LiveApp) -> dict[str, object]:
    status, _, body = app.ask("/")
    assert status == 200, body
    found = json.loads(body)
    assert isinstance(found, dict)
    return found


def _built(done: Done) -> str:
    """What the build step said."""
    (event,) = [one for one in done.events if one["event"] == "step-done" and one["step"] == "build"]
    return str(event["note"])


def _lock(app: LiveApp, done: Done) -> str:
    return (app.layout.release(done.release) / "requirements.lock").read_text()


def _assert_hashed(lock: str) -> None:
    entries = [line for line in lock.replace("\\\n", " ").splitlines() if "==" in line and not line.startswith("#")]
    assert entries
    assert [line for line in entries if "--hash=sha256:" not in line] == []


def test_a_uv_lock_is_deployed_with_its_path_dependency(new_app: NewApp) -> None:
    """What uv.lock pins is installed without the dev group, and a package of the source is built for the release.

    A change of the code leaves the lock as it is, and a lock that is older than its list is refused with the command.
    """
    app = new_app("uv", {**_fixture("uv"), "app.py": _serving("tinylib", "blinker"), "requirements.txt": "wrong\n"})
    first = app.deploy()
    packages = _told(app)["packages"]
    assert isinstance(packages, dict)
    assert (packages["tinylib"], packages["itsdangerous"], packages["blinker"]) == ("0.3", "2.2.0", "1.9.0")
    assert not {"iniconfig", "tomli", "shop"} & packages.keys()
    assert "by uv.lock" in _built(first)
    assert "built tinylib 0.3; requirements.txt is not used; gunicorn was added: uv.lock does not" in _built(first)
    _assert_hashed(_lock(app, first))

    workshop.commit(app.folder, {"lib/tinylib/__init__.py": '"""Changed."""\n'}, "Change the package")
    second = app.deploy()
    assert _lock(app, second) == _lock(app, first)
    site = workshop.site(app.layout.release(second.release))
    assert (site / "tinylib" / "__init__.py").read_text() == '"""Changed."""\n'

    pyproject = (app.folder / "pyproject.toml").read_text().replace('"itsdangerous>=2.1"', '"itsdangerous>=3"')
    workshop.commit(app.folder, {"pyproject.toml": pyproject}, "Ask for more")
    refused = app.change("deploy").must(3)
    assert refused.reference == "lock-outdated"
    assert "does not give itsdangerous>=3" in refused.out
    assert "uv lock, commit it (or delete it, and requirements.txt is taken)" in refused.out
    assert app.status()["serving"] == second.release


def test_the_locks_of_other_tools_are_deployed(new_app: NewApp) -> None:
    """One app that moves from pipenv to Poetry to pylock.toml gets what each lock pins, with the lock's own hashes."""
    app = new_app("locks", {**_fixture("pipenv"), "app.py": _serving("itsdangerous")})
    for folder, name, gone in (
        ("pipenv", "Pipfile.lock", ()),
        ("poetry", "poetry.lock", ("Pipfile", "Pipfile.lock")),
        ("pylock", "pylock.toml", ("poetry.lock",)),
    ):
        for old in gone:
            (app.folder / old).unlink()
        workshop.commit(app.folder, _fixture(folder), f"Take {name}")
        assert f"in {name}" in _init(app, "app:app").err
        done = app.deploy()
        packages = _told(app)["packages"]
        assert isinstance(packages, dict)
        assert packages["itsdangerous"] == "2.2.0"
        assert packages.keys() == {"itsdangerous", "gunicorn", "packaging"} or packages.keys() == {
            "itsdangerous",
            "gunicorn",
        }
        assert f"by {name}" in _built(done)
        _assert_hashed(_lock(app, done))
        hashes = [line for line in _lock(app, done).splitlines() if line.startswith("itsdangerous==")]
        assert hashes[0].count("--hash=sha256:") == 2


_PROJECT = """\
[project]
name = "shop"
version = "1.4.0"
description = "A shop"
requires-python = ">=3.11"
dependencies = ["itsdangerous"]
{more}
[build-system]
requires = ["flit_core<4"]
build-backend = "flit_core.buildapi"
"""


def test_a_project_that_is_a_package_is_installed_as_one(new_app: NewApp) -> None:
    """With pyproject.toml alone and a src layout the app finds its own version and entry points.

    Nothing is written into the person's folder, and a project that needs no installing is not built at all.
    """
    scripts = '[project.scripts]\nshop-hello = "shop:hello"\n'
    files = {"pyproject.toml": _PROJECT.format(more=scripts), "src/shop/__init__.py": _serving("itsdangerous", "shop")}
    app = new_app("flaskr", files, entry="shop:app")
    before = workshop.names_below(app.folder)
    first = app.deploy()
    told = _told(app)
    assert isinstance(told["packages"], dict)
    assert told["packages"]["shop"] == "1.4.0"
    assert told["commands"] == ["shop-hello"]
    assert "by pyproject.toml" in _built(first)
    assert "built shop 1.4.0" in _built(first)
    assert {name for name in workshop.names_below(app.folder) if not name.startswith(".git/")} == {
        name for name in before if not name.startswith(".git/")
    }
    environment = app.layout.release(first.release) / "venv"
    assert (environment / "bin" / "shop-hello").is_file()

    plain = "import json\ndef app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{}']\n"
    workshop.commit(app.folder, {"pyproject.toml": _PROJECT.format(more=""), "src/shop/__init__.py": plain}, "Plainer")
    second = app.deploy()
    assert _told(app) == {}
    assert "built" not in _built(second)


def test_a_private_index_is_reached_by_settings_that_nobody_else_sees(new_app: NewApp, tmp_path: Path) -> None:
    """The build gets the index's password from the settings; no other file, no output and no command line has it.

    The three ways: pip's setting, uv's settings by the index's name, and a variable in requirements.txt.
    """
    wheel = workshop.make_wheel(tmp_path / "wheels", "secretpkg", "1.0")
    with private_index(wheel, f"canary-{secrets.token_hex(8)}") as index:
        files = {"app.py": _serving("secretpkg"), "requirements.txt": "secretpkg\n"}
        app = new_app("private", files, root="private")
        try:
            outputs = [app.change("deploy").must(3)]
            (app.folder / ".env").write_text(f"PIP_EXTRA_INDEX_URL={index.address_with_password}\n")
            outputs.append(app.deploy("--worktree"))
            told = _told(app)
            assert told["settings"] == []
            assert "PIP_EXTRA_INDEX_URL" in app.run("env", "list", status=0).out

            app.change("env", "unset", "PIP_EXTRA_INDEX_URL").must(0)
            lines = f"UV_INDEX=corp={index.address}", f"UV_INDEX_CORP_USERNAME={USER}", "UV_INDEX_CORP_PASSWORD=-"
            set_them = app.run("env", "set", *lines, "--json", stdin=index.password, status=0)
            workshop.write(app.folder, {"requirements.txt": "secretpkg>=1\n"})
            outputs += [set_them, app.deploy("--worktree")]
            assert _told(app)["settings"] == []

            line = f"--extra-index-url http://{USER}:${{IDX_PASSWORD}}@{index.host}/simple\nsecretpkg<2\n"
            outputs.append(app.run("env", "set", "IDX_PASSWORD=-", "--json", stdin=index.password, status=0))
            outputs.append(app.run("env", "unset", "UV_INDEX", "UV_INDEX_CORP_PASSWORD", "--json", status=0))
            workshop.write(app.folder, {"requirements.txt": line})
            outputs.append(app.deploy("--worktree"))

            outputs.append(app.run("env", "set", "IDX_PASSWORD=-", "--json", stdin=f"{index.password}-wrong", status=0))
            workshop.write(app.folder, {"requirements.txt": f"{line}itsdangerous\n"})
            outputs.append(app.change("deploy", "--worktree").must(3))
            assert "401" in outputs[-1].out
            assert ("/files/secretpkg-1.0-py3-none-any.whl", True) in index.asked

            assert index.seen_in == []
            said = "".join(one.out + one.err for one in outputs)
            assert index.password not in said
            settings = {app.layout.environment, *app.layout.frozen_settings.glob("*")}
            found = [path for path in _files(app.root) if _has_any(path, index.secrets) and path not in settings]
            assert found == []
            assert any(_has_any(path, index.secrets) for path in settings)
        finally:
            shutil.rmtree(tmp_path / "wheels")


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (path for name in names if not (path := Path(parent, name)).is_symlink() and path.is_file())


def _has_any(path: Path, words: tuple[bytes, ...]) -> bool:
    content = path.read_bytes()
    return any(word in content for word in words)


def test_what_the_machine_lacks_is_named_with_its_package(new_app: NewApp) -> None:
    """An app, or its migration, that cannot load a shared library is told of with the Debian package that has it."""
    source = "raise ImportError('libpq.so.5: cannot open shared object file: No such file or directory')\n"
    app = new_app("library", {"app.py": f"{_serving()}{source}", "requirements.txt": "itsdangerous\n"})
    workshop.write(app.folder, {"migrate.py": source})
    for reference in ("crashed-at-boot", "migration-failed"):
        failed = app.change("deploy", "--worktree").must(3)
        assert failed.reference == reference
        assert "the library libpq.so.5 is missing on this machine" in failed.out
        assert "apt install libpq5" in failed.out
        workshop.append(app.folder / "bulletproof.toml", 'migrations.command = "python migrate.py"\n')
