"""Django SQL Explorer in a plain Django project."""

from __future__ import annotations

import pytest

from bulletproof.domain.report import Way
from embedded.conftest import LayApp
from gallery.django_site import ADD_ADMIN, site
from gallery.visitor import Visitor, report, rows, upgrade, version_of

pytestmark = [pytest.mark.xdist_group("gallery-sql-explorer"), pytest.mark.timeout(900)]

_REQUIREMENTS = "django==5.2.*\ndj-database-url\ndjango-sql-explorer=={}\n"
_MORE = 'EXPLORER_CONNECTIONS = {"Default": "default"}\nEXPLORER_DEFAULT_CONNECTION = "default"\n'
_MOVED = "SELECT title, alias FROM explorer_query JOIN explorer_databaseconnection c ON c.id = database_connection_id"


def test_sql_explorer_is_upgraded_with_a_query_in_it_and_not_rolled_back(init_app: LayApp) -> None:
    """One of its migrations moves data and has no way back, and older code cannot insert: refused, in words."""
    files = {"requirements.txt": _REQUIREMENTS.format("4.3"), **site("explorer", "", "explorer.urls", _MORE)}
    app = init_app("explorer", files)
    app.deploy()
    app.run("run", "--", *ADD_ADMIN.split(), status=0)
    visitor = Visitor(app)
    visitor.submit("/admin/login/", username="ann", password="secret", next="/admin/")
    visitor.submit("/new/", title="All users", sql="SELECT username FROM auth_user", connection="default")
    assert rows(app, "SELECT title, connection FROM explorer_query") == [("All users", "default")]

    second = upgrade(app, _REQUIREMENTS.format("5.3"))
    pending = report(app).pending
    assert len(pending) == 12
    assert pending[0] == "explorer.0017_databaseconnection"
    assert report(app).rollback is Way.RESTORE
    assert rows(app, _MOVED) == [("All users", "default")]
    assert "All users" in visitor.must("/")
    assert version_of(app, "django-sql-explorer") == "5.3"

    refused = app.change("rollback").must(3, "undone")
    assert refused.reference == "schema-newer"
    assert app.status()["serving"] == second.release
    assert "All users" in visitor.must("/")
