"""ARA Records Ansible: a Django project that lies wholly in an installed package."""

from __future__ import annotations

import json

import pytest

from bulletproof.domain.report import Way
from embedded.conftest import LayApp
from gallery.visitor import Visitor, report, rows, upgrade, version_of

pytestmark = [pytest.mark.xdist_group("gallery-ara"), pytest.mark.timeout(900)]

_OLDER = "ara[server]==1.7.3\ndjango-health-check<4\n"
_NEWER = "ara[server]==1.8.0\ndjango-health-check<4\n"
_FILES = {
    "requirements.txt": _OLDER,
    "settings.yaml": 'default:\n  ALLOWED_HOSTS: ["127.0.0.1", "ara.example"]\n  TIME_ZONE: UTC\n',
    ".env": "ARA_SECRET_KEY=only-for-tests\n",
    "wsgi.py": """\
import os
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ara.server.settings")
os.environ.setdefault("ARA_SETTINGS", str(Path(__file__).with_name("settings.yaml")))
os.environ["ARA_DATABASE_NAME"] = os.environ["DATABASE_URL"].removeprefix("sqlite:///")

from ara.server.wsgi import application
""",
}
_WHEN = "2026-01-02T03:04:05Z"
_TASKS = "SELECT name, action, lineno FROM tasks"


def _record(visitor: Visitor) -> None:
    """What Ansible's callback sends of a play with one task."""
    playbook = {"started": _WHEN, "status": "running", "path": "/site.yml", "ansible_version": "2.17.0"}
    visitor.post("/api/v1/playbooks", playbook)
    visitor.post("/api/v1/files", {"path": "/site.yml", "content": "- hosts: all\n", "playbook": 1})
    play = {"name": "web", "started": _WHEN, "status": "running", "playbook": 1}
    visitor.post("/api/v1/plays", {**play, "uuid": "1c6ba6ad-6a6e-4a5b-8a6f-5a8bd4a8f0a1"})
    task = {"name": "install nginx", "action": "package", "lineno": 3, "tags": [], "handler": False}
    visitor.post("/api/v1/tasks", {**task, "started": _WHEN, "status": "running", "playbook": 1, "play": 1, "file": 1})


def test_ara_is_upgraded_with_records_in_it_and_goes_back_only_when_told(init_app: LayApp) -> None:
    """Its columns of 1.8 have no default in the database, so a rollback takes them back, which has to be allowed."""
    app = init_app("ara", _FILES)
    first = app.deploy()
    visitor = Visitor(app)
    _record(visitor)
    before = rows(app, _TASKS)
    assert before == [("install nginx", "package", 3)]

    second = upgrade(app, _NEWER)
    assert [one.partition("_")[0] for one in report(app).pending] == ["api.0018", "api.0019", "api.0020"]
    assert report(app).rollback is Way.DOWN
    assert rows(app, _TASKS) == before
    assert "deprecations" in json.loads(visitor.must("/api/v1/tasks/1"))
    assert version_of(app, "ara") == "1.8.0"

    refused = app.change("rollback").must(3, "undone")
    assert refused.reference == "data-loss"
    assert app.status()["serving"] == second.release
    app.change("rollback", "--allow-data-loss").must(0, "deployed")
    assert app.status()["serving"] == first.release
    assert rows(app, _TASKS) == before
    assert "deprecations" not in json.loads(visitor.must("/api/v1/tasks/1"))
    assert "/site.yml" in visitor.must("/playbooks/1.html")
