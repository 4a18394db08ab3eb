"""A person's own checks: what their tables may say, how visits go, and what is made of what was found."""

from __future__ import annotations

import http.server
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from bulletproof.domain.check import Severity, Unseen
from bulletproof.domain.config import OwnCheck, Step
from bulletproof.domain.own import filled, seen_of_command, trouble_with_step, trouble_with_url
from bulletproof.domain.page import Page, forms_in
from bulletproof.domain.public import Public
from bulletproof.domain.toml import parse
from bulletproof.effects.visit import Visitor, fetch
from bulletproof.errors import StepFailed, UsageError

GOOD = """\
name = "shop"
[check]
skip = ["clock", "front", "login"]
[check.own.front]
url = "/shop?page=1"
status = [200, 204]
text = "Welcome"
latency_ms = 500
[check.own.stock]
command = "test -e stock"
severity = "wanted"
[check.own.queue]
entry = "shop.health:queue"
timeout_seconds = 2
[[check.visit.login]]
path = "/login"
[[check.visit.login]]
path = "/login"
send = { user = "check", password = "$CHECK_PASSWORD" }
redirect = "/account"
"""


def test_what_can_be_said() -> None:
    """Checks by address, command and function, and a visit of several steps."""
    check = parse(GOOD).check
    assert check.own["front"] == OwnCheck(url="/shop?page=1", status=(200, 204), text="Welcome", latency_ms=500)
    assert check.own["stock"] == OwnCheck(command="test -e stock", severity=Severity.WANTED)
    assert check.own["queue"] == OwnCheck(entry="shop.health:queue", timeout_seconds=2)
    login = Step(path="/login", send={"user": "check", "password": "$CHECK_PASSWORD"}, redirect="/account")
    assert check.visit == {"login": (Step(path="/login"), login)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[check.own.front]\nurl = "/"\nlaetncy_ms = 1',
            "4:1: `laetncy_ms` is no key of [check.own.front]; did you mean `latency_ms`? Known there: url,",
        ),
        (
            '[[check.visit.login]]\npath = "/"\n[[check.visit.login]]\npath = "/"\nredirects = "/a"',
            "6:1: `redirects` is no key of [[check.visit.login]]; did you mean `redirect`? Known there: path, send,",
        ),
        (
            '[[check.visit.login]]\nsend = { a = "b" }',
            '2:15: `path` is missing; write path = "/login" into [[check.visit.login]]',
        ),
        (
            "[check.visit.login]\npath = '/'",
            "2:14: `login` must be a list of tables; write [[check.visit.login]]",
        ),
        ("[check]\nvisit = 3", "3:9: `visit` must be a table, not 3"),
        ("[[check.visit.login]]\npath = '/'\nsend = 'a'", '4:8: `send` must be a table, not the text "a"'),
        ("[[check.visit.login]]\npath = '/'\nsend.a = 3", "4:10: `a` must be text, not 3"),
        (
            "[check.own.front]\nseverity = 'wanted'",
            "2:12: `front` needs exactly one of `url`, `command` and `entry`, and has none of them",
        ),
        (
            "[check.own.front]\nurl = '/'\ncommand = 'true'",
            "2:12: `front` needs exactly one of `url`, `command` and `entry`, and has url and command",
        ),
        ("[check.own.front]\ncommand = 'true'\ntext = 'a'", "4:1: `text` goes with `url`, and here is `command`"),
        (
            "[check.own.a]\nurl = '/'\ncertificate_days = 3",
            "4:1: `certificate_days` needs a `url` that begins with https",
        ),
        (
            "[check.own.disk]\ncommand = 'true'",
            "2:12: `disk` is the name of a check that is built in: bulletproof check --explain disk",
        ),
        (
            "[check.own.a]\ncommand = 'true'\n[[check.visit.a]]\npath = '/'",
            "4:15: `a` is the name of one of your own checks as well",
        ),
        ('[check.own.front]\ncommand = "echo \'a"', '3:11: `command` must be a command, such as "python worker.py":'),
        ("[check.own.front]\nurl = 'ftp://a'", "3:7: `url` must be an address such as"),
        ("[check]\nskip = ['clok']", "3:1: `skip` names clok, and there is no such check; known are service,"),
        ("[check]\nschedule = '* * *'", "3:12: `schedule` must be five fields as in a crontab,"),
        ("[check.own.'a b']\ncommand = 'true'", '2:12: `"a b"` must be named with at most 31 letters,'),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, message: str) -> None:
    """Each mistake by its line and column, in words."""
    with pytest.raises(UsageError) as caught:
        parse(f'name = "shop"\n{text}\n')
    assert caught.value.message.startswith(f"bulletproof.toml:{message}"), caught.value.message


def test_settings_are_filled_in() -> None:
    """By their names; a dollar sign stands twice; one that is not there is an error with what to type."""
    assert filled({"a": "$A", "b": "5$$ and $B!"}, {"A": "x$B", "B": "y"}) == {"a": "x$B", "b": "5$ and y!"}
    with pytest.raises(StepFailed, match="there is no setting C"):
        filled({"a": "$C"}, {})


@pytest.mark.parametrize(
    ("step", "page", "words"),
    [
        (Step(path="/"), Page(status=200), ""),
        (Step(path="/"), Page(status=302, location="/login"), "it answered 302, to /login"),
        (Step(path="/", send={"a": "b"}), Page(status=303), ""),
        (Step(path="/", send={"a": "b"}), Page(status=400), "it answered 400"),
        (Step(path="/", status=(400,)), Page(status=400), ""),
        (Step(path="/", status=(400,)), Page(status=200), "it answered 200"),
        (Step(path="/", redirect="/a"), Page(status=303, location="http://x/a", leads_to="/a"), ""),
        (Step(path="/", redirect="/a"), Page(status=303, location="/b", leads_to="/b"), "it leads to /b, not to /a"),
        (Step(path="/", redirect="/a"), Page(status=200), "it leads to nowhere, not to /a"),
        (Step(path="/", text="Hi"), Page(status=200, text="Hello"), "its answer does not have 'Hi' in it"),
        (Step(path="/", no_text="Log in"), Page(status=200, text="Log in"), "its answer has 'Log in' in it"),
        (Step(path="/", no_text="Log in"), Page(status=200, text="Hi"), ""),
        (Step(path="/"), Page(status=0, words="no answer in time"), "no answer in time"),
    ],
)
def test_what_a_step_expects(step: Step, page: Page, words: str) -> None:
    """Status, where it leads, what stands there and what does not."""
    assert trouble_with_step(step, page) == words


@pytest.mark.parametrize(
    ("check", "page", "words"),
    [
        (OwnCheck(url="/"), Page(status=301), ""),
        (OwnCheck(url="/"), Page(status=404), "it answered 404"),
        (OwnCheck(url="/", status=(404,)), Page(status=404), ""),
        (OwnCheck(url="/", text="a"), Page(status=200, text="b"), "its answer does not have 'a' in it"),
        (
            OwnCheck(url="/", latency_ms=9),
            Page(status=200, seconds=0.2),
            "it answered after 200 ms, and may take 9",
        ),
        (OwnCheck(url="/", certificate_days=14), Page(status=200, certificate_days=15.0), ""),
        (
            OwnCheck(url="/", certificate_days=14),
            Page(status=200, certificate_days=13.0),
            "its certificate is good for 13 days more, not 14",
        ),
        (OwnCheck(url="/", certificate_days=0), Page(status=200), "it has no certificate: "),
        (OwnCheck(url="/"), Page(status=0, words="no answer"), "no answer"),
    ],
)
def test_what_an_address_must_answer(check: OwnCheck, page: Page, words: str) -> None:
    """Each condition, alone."""
    found = trouble_with_url(check, page)
    assert found.startswith(words)
    assert bool(found) == bool(words)


def test_commands_tell_as_nagios_plugins_do() -> None:
    """0, 1 and 2 by their meaning, anything else is unknown; the first line without its numbers is what is told."""
    good = seen_of_command(0, "\nfine | load=1\nmore", "")
    assert (good.is_good, good.words) == (True, "fine")
    warning, critical = seen_of_command(1, "", "slow"), seen_of_command(2, "", "")
    assert (warning.is_good, warning.severity, warning.words) == (False, Severity.WANTED, "slow")
    assert (critical.is_good, critical.severity) == (False, Severity.REQUIRED)
    for status in (3, 127, -9):
        with pytest.raises(Unseen):
            seen_of_command(status, "x", "")


def test_forms_of_a_page() -> None:
    """Each with its hidden fields and the names of all; what is outside of forms is nobody's."""
    first, second = forms_in(
        '<input name="out"><form><input type=HIDDEN name="csrf" value="a&amp;b"><input name="user">'
        '<textarea name="text"></textarea></form><input name="out"><form action="/go"><button name="b">x</form>'
    )
    assert (first.action, first.hidden, first.names) == ("", {"csrf": "a&b"}, {"csrf", "user", "text"})
    assert (second.action, second.names) == ("/go", {"b"})


class Site(http.server.BaseHTTPRequestHandler):
    """A site with a log-in: a cookie and a hidden token that must fit, and a page for those who are in."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """The form with the token of the cookie, or the account."""
        if self.path == "/login":
            search = '<form action="/search"><input name=user></form>'
            form = f'{search}<form action="login"><input type=hidden name=csrf value=t1><input name=user></form>'
            self._tell(200, form, ("session=s1; HttpOnly", "old=; Max-Age=0"))
        elif self.path == "/account" and "in=yes" in (self.headers["Cookie"] or ""):
            self._tell(200, f"cookies: {self.headers['Cookie']}", ())
        elif self.path == "/odd":
            self._tell(200, "x", ("a b=c; ?", "kept=1"))
        else:
            self._tell(302, "", (), "/login?next=1")

    def do_POST(self) -> None:
        """In, for who has cookie, token and name."""
        sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        fits = sent == {"csrf": ["t1"], "user": ["anna"]} and "session=s1" in (self.headers["Cookie"] or "")
        self._tell(303, "", ("in=yes",), "/account") if fits else self._tell(400, "no", ())

    def _tell(self, status: int, text: str, cookies: tuple[str, ...], location: str = "") -> None:
        self.send_response(status)
        for cookie in cookies:
            self.send_header("Set-Cookie", cookie)
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(text.encode())


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[int]:
    """The site on a port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_visit_with_cookies_and_a_token() -> None:
    """The form's hidden token and the cookie are sent along; who types something else, or has no form, stays out."""
    with serving() as port:
        visitor = Visitor(port, Public(host=f"127.0.0.1:{port}"))
        page = visitor.get("/account", timeout_seconds=5)
        assert (page.status, page.location, page.leads_to) == (302, "/login?next=1", "/login")
        with pytest.raises(StepFailed, match="/account has no form with user that is sent to /login"):
            visitor.send("/login", {"user": "anna"}, timeout_seconds=5)
        visitor.get("/login", timeout_seconds=5)
        assert visitor.send("/login", {"user": "mallory"}, timeout_seconds=5).status == 400
        assert visitor.get("/account", timeout_seconds=5).status == 302
        visitor.get("/login", timeout_seconds=5)
        assert visitor.send("/login", {"user": "anna"}, timeout_seconds=5).leads_to == "/account"
        assert visitor.get("/account", timeout_seconds=5).text == "cookies: session=s1; in=yes"
        visitor.get("/odd", timeout_seconds=5)
    assert visitor.get("/", timeout_seconds=1).words.startswith("no answer: ")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_certificate_and_its_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is trusted tells how long it is good; one that is not is no answer."""
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "20", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    argv += ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    with serving(context) as port:
        address = f"https://localhost:{port}/login?a=b"
        assert fetch(address, timeout_seconds=5).words.startswith("its certificate is not good: self")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate"))
        page = fetch(address, timeout_seconds=5)
        assert page.status == 302
        assert page.certificate_days is not None
        assert 19 < page.certificate_days <= 20
    assert fetch("http://127.0.0.1:99999/", timeout_seconds=1).status == 0
