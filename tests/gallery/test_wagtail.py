"""Wagtail, the content management system, in a plain Django project."""

from __future__ import annotations

import pytest

from bulletproof.domain.report import Way
from embedded.conftest import LayApp
from gallery.django_site import ADD_ADMIN, site
from gallery.visitor import Visitor, report, rows, upgrade, version_of

pytestmark = [pytest.mark.xdist_group("gallery-wagtail"), pytest.mark.timeout(900)]

_REQUIREMENTS = "django==5.2.*\ndj-database-url\nwagtail=={}\n"
_APPS = (
    "wagtail.contrib.forms wagtail.contrib.redirects wagtail.embeds wagtail.sites wagtail.users wagtail.snippets"
    " wagtail.documents wagtail.images wagtail.search wagtail.admin wagtail modelcluster taggit"
)
_MORE = """
WAGTAIL_SITE_NAME = "Site"
WAGTAILADMIN_BASE_URL = "http://127.0.0.1"
MEDIA_ROOT = BASE_DIR / "media"
MEDIA_URL = "media/"
"""
_KEPT = "SELECT old_path, redirect_link FROM wagtailredirects_redirect"


def test_wagtail_is_upgraded_with_what_an_editor_made_and_goes_back(init_app: LayApp) -> None:
    """The migrations of four of its apps between two long-term versions, and the same four taken back."""
    files = {"requirements.txt": _REQUIREMENTS.format("7.0.10"), **site(_APPS, "cms/", "wagtail.admin.urls", _MORE)}
    app = init_app("wagtail", files)
    first = app.deploy()
    app.run("run", "--", *ADD_ADMIN.split(), status=0)
    visitor = Visitor(app)
    visitor.submit("/cms/login/", username="ann", password="secret", next="/cms/")
    visitor.submit("/cms/redirects/add/", old_path="/old", site="", redirect_link="https://example.org/new")
    assert rows(app, _KEPT) == [("/old", "https://example.org/new")]

    upgrade(app, _REQUIREMENTS.format("7.4.4"))
    apps = {pending.partition(".")[0] for pending in report(app).pending}
    assert apps == {"wagtailadmin", "wagtailcore", "wagtailsearch", "wagtailusers"}
    assert report(app).rollback is Way.DOWN, report(app).rollback_words
    assert rows(app, _KEPT) == [("/old", "https://example.org/new")]
    assert "/old" in visitor.must("/cms/redirects/")
    assert version_of(app, "wagtail") == "7.4.4"

    app.change("rollback").must(0, "deployed")
    assert app.status()["serving"] == first.release
    assert version_of(app, "wagtail") == "7.0.10"
    assert rows(app, _KEPT) == [("/old", "https://example.org/new")]
    assert "/old" in visitor.must("/cms/redirects/")
