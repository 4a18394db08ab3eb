"""I Hate Money: a Flask app whose migrations lie in its package, and which runs them itself when it boots."""

from __future__ import annotations

import base64

import pytest

from bulletproof.domain.report import Way
from embedded.conftest import LayApp
from gallery.visitor import Visitor, report, rows, upgrade, version_of

pytestmark = [pytest.mark.xdist_group("gallery-ihatemoney"), pytest.mark.timeout(900)]

_FILES = {
    "requirements.txt": "ihatemoney==6.1.5\n",
    ".env": "SECRET_KEY=only-for-tests\n",
    "settings.py": """\
import os

SQLALCHEMY_DATABASE_URI = os.environ["DATABASE_URL"]
SECRET_KEY = os.environ["SECRET_KEY"]
""",
    "wsgi.py": """\
from ihatemoney.run import create_app

application = create_app("settings")
""",
}
_LOGIN = {"Authorization": f"Basic {base64.b64encode(b'house:secret1').decode()}"}
_BILL = {"date": "2026-01-02", "what": "Bread", "payer": 1, "payed_for": [1], "amount": "12.50", "external_link": ""}
_BILLS = "SELECT what, amount FROM bill"


def test_ihatemoney_is_upgraded_with_bills_in_it_and_goes_back_only_when_told(init_app: LayApp) -> None:
    """Older code cannot run on newer data, and the way down drops a column with values: refused until it is allowed."""
    app = init_app("ihatemoney", _FILES)
    first = app.deploy()
    assert "ihatemoney/migrations made 11 tables" in first.note("database")
    visitor = Visitor(app)
    project = {"name": "House", "id": "house", "password": "secret1", "contact_email": "ann@example.com"}
    visitor.post("/api/projects", {**project, "default_currency": "XXX"})
    visitor.post("/api/projects/house/members", {"name": "Ann", "weight": 1}, **_LOGIN)
    visitor.post("/api/projects/house/bills", {**_BILL, "original_currency": "XXX"}, **_LOGIN)
    assert rows(app, _BILLS) == [("Bread", 12.5)]

    second = upgrade(app, "ihatemoney==7.2.1\n")
    assert [one.partition(" ")[0] for one in report(app).pending] == ["7a9b38559992", "06884b17c50f", "c941aaca38c2"]
    assert report(app).rollback is Way.DOWN
    assert rows(app, "SELECT what, amount, bill_type FROM bill") == [("Bread", 12.5, "EXPENSE")]
    assert '"Bread"' in visitor.ask("/api/projects/house/bills", None, **_LOGIN)[1]
    assert version_of(app, "ihatemoney") == "7.2.1"

    refused = app.change("rollback").must(3, "undone")
    assert refused.reference == "data-loss"
    assert "drops column bill.bill_type: 1 non-null values" in refused.err + refused.out
    assert app.status()["serving"] == second.release
    app.change("rollback", "--allow-data-loss").must(0, "deployed")
    assert app.status()["serving"] == first.release
    assert rows(app, "SELECT version_num FROM alembic_version") == [("927ed575acbd",)]
    assert '"Bread"' in visitor.ask("/api/projects/house/bills", None, **_LOGIN)[1]
