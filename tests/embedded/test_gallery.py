"""The gallery: `init; deploy` on small apps of every kind; each answers, or it is said in a sentence why not."""

from __future__ import annotations

import http

import pytest

import workshop
from embedded.conftest import LayApp
from free_ports import free_port
from gallery_apps import CASES, Case, complete
from live_app import LiveApp

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_app_of_every_kind(lay_app: LayApp, case: Case) -> None:
    """What `init` finds, with its reason, is enough to deploy it; or the first of the two refuses it in words."""
    app = lay_app(case.name, case.files)
    complete(app.folder, case)
    workshop.commit(app.folder, {}, "Complete it")
    told = app.run("init", "--name", app.name)
    if not case.entry:
        _assert_refused(told.status, told.err, case)
        return
    assert told.status == 0, told
    assert f'app.entry = "{case.entry}"' in (app.folder / "bulletproof.toml").read_text()
    for words in case.says:
        assert words in told.err
    config = app.folder / "bulletproof.toml"
    # Other tests choose the first free port at the same time, each below a root of its own.
    config.write_text(f"{config.read_text()}proxy.port = {free_port()}\n")
    workshop.commit(app.folder, {}, "Configure it")
    deployed = app.run("deploy")
    if case.refused:
        _assert_refused(deployed.status, deployed.err, case)
        assert "nothing serves" in deployed.err
        return
    assert deployed.status == 0, deployed
    for words in case.words:
        assert words in deployed.err
    _assert_serves(app, case)


def _assert_refused(status: int, told: str, case: Case) -> None:
    assert status in {1, 2, 3}, told
    assert f"error: {case.refused}" in told
    for words in case.words:
        assert words in told


def _assert_serves(app: LiveApp, case: Case) -> None:
    if case.answer:
        status, _, body = app.ask("/")
        assert (status, body) == (http.HTTPStatus.OK, case.answer)
    else:
        assert app.ask("/up")[0] == http.HTTPStatus.OK
