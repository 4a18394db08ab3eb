"""Pages asked for as a browser does: one address, or one after the other of a site with cookies and forms."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlencode, urljoin, urlsplit

from bulletproof.domain.page import Form, Page, forms_in
from bulletproof.domain.public import Public
from bulletproof.effects.probe import connection_to
from bulletproof.errors import StepFailed

_READ_AT_MOST = 1 << 20
_DAY = 86400
_AGENT = {"User-Agent": "bulletproof", "Connection": "close"}


def fetch(url: str, *, timeout_seconds: float) -> Page:
    """GET an address of http or https, once; it is not redirected, and a certificate that is not good is no answer."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=timeout_seconds)
    except ValueError as error:
        return Page(status=0, words=f"{url} is no address: {error}")
    return _asked(connection, "GET", target, {}, None)[0]


def look_at(path: str, port: int, public: Public, *, timeout_seconds: float) -> Page:
    """GET a path of the app, by its proxy on this machine."""
    return _asked(connection_to(port, public, timeout_seconds), "GET", path, {"Host": public.host}, None)[0]


class Visitor:
    """Somebody who asks the proxy on this machine for one page after the other, and keeps what cookies say."""

    def __init__(self, port: int, public: Public) -> None:
        self._port = port
        self._public = public
        self._cookies: dict[str, str] = {}
        self._at, self._page = "/", Page(status=0)

    def get(self, path: str, *, timeout_seconds: float) -> Page:
        """Ask for a page."""
        return self._ask("GET", path, {}, None, timeout_seconds)

    def send(self, path: str, fields: Mapping[str, str], *, timeout_seconds: float) -> Page:
        """Send the form of the last page that goes to `path`, with its hidden fields and these typed in.

        Raises StepFailed when the last page has no such form.
        """
        form = self._form(path, fields)
        if form is None:
            raise StepFailed("form-missing", f"{self._at} has no form with {', '.join(fields)} that is sent to {path}")
        content = urlencode({**form.hidden, **fields}).encode()
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Origin": self._public.address,
            "Referer": f"{self._public.address}{self._at}",
        }
        return self._ask("POST", path, headers, content, timeout_seconds)

    def _form(self, path: str, fields: Mapping[str, str]) -> Form | None:
        wanted = urlsplit(path).path
        fitting = [form for form in forms_in(self._page.text) if fields.keys() <= form.names]
        return next((form for form in fitting if urlsplit(urljoin(self._at, form.action)).path == wanted), None)

    def _ask(
        self, method: str, path: str, headers: Mapping[str, str], content: bytes | None, timeout_seconds: float
    ) -> Page:
        connection = connection_to(self._port, self._public, timeout_seconds)
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        ours = {"Host": self._public.host, **({"Cookie": cookies} if cookies else {})}
        page, told = _asked(connection, method, path, {**headers, **ours}, content)
        for line in told:
            self._keep(line)
        self._at, self._page = path, page
        return page

    def _keep(self, line: str) -> None:
        try:
            told = SimpleCookie(line)
        except CookieError:
            return  # a browser leaves out what it cannot read as well
        for name, cookie in told.items():
            if cookie["max-age"] == "0" or not cookie.value:
                self._cookies.pop(name, None)
            else:
                self._cookies[name] = cookie.coded_value


def _asked(
    connection: http.client.HTTPConnection, method: str, target: str, headers: Mapping[str, str], content: bytes | None
) -> tuple[Page, list[str]]:
    """The answer, and what it says of cookies."""
    begun = time.monotonic()
    days = None
    try:
        connection.request(method, target, content, {**_AGENT, **headers})
        days = _certificate_days(connection)
        answer = connection.getresponse()
        text = answer.read(_READ_AT_MOST).decode(errors="replace")
        status, location, words = answer.status, answer.headers.get("Location", ""), ""
        cookies = answer.headers.get_all("Set-Cookie")
    except TimeoutError:
        status, location, cookies, text, words = 0, "", None, "", "no answer in time"
    except ssl.SSLCertVerificationError as error:
        status, location, cookies, text, words = 0, "", None, "", f"its certificate is not good: {error.verify_message}"
    except (OSError, http.client.HTTPException) as error:
        status, location, cookies, text = 0, "", None, ""
        words = f"no answer: {str(error) or type(error).__name__}"
    finally:
        connection.close()
    page = Page(
        status=status,
        seconds=time.monotonic() - begun,
        text=text,
        location=location,
        leads_to=urlsplit(urljoin(target, location)).path if location else "",
        words=words,
        certificate_days=days,
    )
    return page, cookies or []


def _certificate_days(connection: http.client.HTTPConnection) -> float | None:
    """For how long the certificate is good that the server showed; None without one."""
    if not isinstance(connection.sock, ssl.SSLSocket):
        return None
    told = connection.sock.getpeercert() or {}
    return (ssl.cert_time_to_seconds(str(told["notAfter"])) - time.time()) / _DAY
