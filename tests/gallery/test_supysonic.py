"""Supysonic: a Flask app with Peewee and migrations of its own, which it runs when it boots."""

from __future__ import annotations

import pytest

from bulletproof.domain.report import Way
from embedded.conftest import LayApp
from gallery.visitor import Visitor, report, rows, upgrade, version_of

pytestmark = [pytest.mark.xdist_group("gallery-supysonic"), pytest.mark.timeout(900)]

_FILES = {
    # 0.7.5 imports pkg_resources without asking for it, and setuptools has it no more since 81.
    "requirements.txt": "supysonic==0.7.5\nsetuptools<81\n",
    "wsgi.py": """\
import os

from supysonic.config import IniConfig
from supysonic.web import create_application

config = IniConfig([])
config.BASE["database_uri"] = os.environ["DATABASE_URL"]
config.WEBAPP["cache_dir"] = os.path.expanduser("~/cache")

application = create_application(config)
""",
}
_ADD_USER = "import wsgi; from supysonic.managers.user import UserManager; UserManager.add('ann', 'secret', admin=True)"
_LOGIN = "u=ann&p=secret&c=gallery&f=json"
_PLAYLISTS = "SELECT playlist.name, user.name FROM playlist JOIN user ON user.id = playlist.user_id"


def test_supysonic_is_upgraded_with_a_playlist_in_it_and_goes_back_by_code_alone(init_app: LayApp) -> None:
    """What its boot adds has a default in the database, so the older code works with it, and nothing is taken back."""
    app = init_app("supysonic", _FILES)
    first = app.deploy()
    app.run("run", "--", "python", "-c", _ADD_USER, status=0)
    visitor = Visitor(app)
    assert '"ok"' in visitor.must(f"/rest/createPlaylist.view?{_LOGIN}&name=Rain")
    assert rows(app, _PLAYLISTS) == [("Rain", "ann")]

    upgrade(app, "supysonic==0.7.9\n")
    found = report(app)
    assert found.migrates_at_boot
    assert found.rollback is Way.CODE
    assert {one.words.partition(" BOOLEAN")[0].partition(" CHAR")[0] for one in found.changes} >= {
        "adds column user.listenbrainz_session",
        "adds column user.listenbrainz_status",
    }
    assert rows(app, _PLAYLISTS) == [("Rain", "ann")]
    assert "Rain" in visitor.must(f"/rest/getPlaylists.view?{_LOGIN}")
    assert version_of(app, "supysonic") == "0.7.9"

    app.change("rollback").must(0, "deployed")
    assert app.status()["serving"] == first.release
    assert "Rain" in visitor.must(f"/rest/getPlaylists.view?{_LOGIN}")
    assert '"ok"' in visitor.must(f"/rest/createPlaylist.view?{_LOGIN}&name=Sun")
    assert rows(app, "SELECT value FROM meta WHERE key = 'schema_version'") == [("20240318",)]
