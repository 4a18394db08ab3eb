"""HTTPS with a domain, as people meet it: a real ASGI app, TLS, HTTP/2, websockets, uploads; and none of it is cut."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h2.exceptions
import httpx
import psutil
import pytest

import workshop
from embedded.places import until
from free_ports import free_port
from live_app import LiveApp, branch
from public_site import DOMAIN, FILES, MIGRATION, WWW, Browser, Http2

pytestmark = [pytest.mark.xdist_group("https"), pytest.mark.timeout(600)]

UPLOAD_MIB = 200
TABLES: dict[str, dict[str, object]] = {
    "app": {"entry": "app:app", "server": "uvicorn", "workers": 1},
    "health": {"paths": ["/up"], "deadline_seconds": 20},
    "migrations": {"command": "python migrate.py"},
    "drain": {"seconds": 8, "stop_seconds": 2},
}


@pytest.fixture(scope="module")
def proxy() -> dict[str, object]:
    """The [proxy] that all tests begin with and end with."""
    return {
        "domain": DOMAIN,
        "aliases": [WWW],
        "certificates": "internal",
        "https_port": free_port(),
        "http_port": free_port(),
        "max_body_mib": 300,
        "maintenance_page": "closed.html",
    }


@pytest.fixture(scope="module")
def app(house: Path, proxy: dict[str, object]) -> Iterator[LiveApp]:
    """An app that was deployed once, with a domain."""
    name = f"https-{secrets.token_hex(2)}"
    app = LiveApp(root=house / "root", name=name, folder=house / "projects" / name / "app", port=None)
    app.folder.mkdir(parents=True)
    app.settings.update(TABLES)
    app.configure(proxy=proxy)
    workshop.commit(app.folder, {**FILES, "closed.html": "<h1>Ours</h1><p>{{ message }}</p>"}, "The first")
    try:
        first = app.deploy()
        assert (first.last["address"], first.last["troubles"]) == (f"https://{DOMAIN}:{proxy['https_port']}", [])
        yield app
    finally:
        app.end()


@pytest.fixture(scope="module")
def browser(app: LiveApp, proxy: dict[str, object]) -> Browser:
    """Somebody who trusts the authority of the proxy and nobody else."""
    return Browser(int(str(proxy["https_port"])), app.layout.proxy_storage / "pki/authorities/local/root.crt")


class Kept:
    """Somebody with HTTP/1.1, who asks again on the connection that there is."""

    def __init__(self, browser: Browser) -> None:
        self._client = browser.client()
        self._url = f"https://{DOMAIN}:{browser.port}"

    def post(self, path: str, body: Iterable[bytes]) -> tuple[int, bytes]:
        """One request."""
        answer = self._client.post(self._url + path, content=b"".join(body))
        return answer.status_code, answer.content

    def close(self) -> None:
        """Hang up."""
        self._client.close()


class New(Kept):
    """Somebody who connects for each request."""

    def __init__(self, browser: Browser) -> None:
        super().__init__(browser)
        self._browser = browser

    def post(self, path: str, body: Iterable[bytes]) -> tuple[int, bytes]:
        """One request."""
        try:
            return super().post(path, body)
        finally:
            self.close()
            self._client = self._browser.client()


PEOPLE: dict[str, Callable[[Browser], Http2 | Kept]] = {"HTTP/2": Http2, "kept": Kept, "new": New}


def change(app: LiveApp, files: dict[str, str | bytes] | None = None) -> str:
    """A commit with files, and with the configuration as it lies there."""
    return branch(app, {"bulletproof.toml": (app.folder / "bulletproof.toml").read_text(), **(files or {})})


@contextlib.contextmanager
def crowd(browser: Browser) -> Iterator[list[str]]:
    """People who ask all the while, on HTTP/2, on kept and on new connections of HTTP/1.1; what failed is listed."""
    failed: list[str] = []
    answered: list[str] = []
    over = threading.Event()

    def ask(way: str) -> None:
        people = PEOPLE[way](browser)
        while not over.is_set():
            try:
                status, told = people.post("/", [b"x" * 100])
                (answered if status == 200 else failed).append(f"{way}: {status} {told!r}")
            except (OSError, httpx.HTTPError, h2.exceptions.ProtocolError) as error:
                failed.append(f"{way}: {error!r}")
                people = PEOPLE[way](browser)
            time.sleep(0.02)
        people.close()

    with ThreadPoolExecutor() as pool:
        asking = [pool.submit(ask, way) for way in PEOPLE]
        try:
            yield failed
        finally:
            over.set()
            for one in asking:
                one.result()
    assert answered
    assert not failed


def test_the_app_sees_the_client_and_https_whatever_the_client_says(browser: Browser) -> None:
    """Address, scheme and host are the real ones, over HTTP/2; forged headers never arrive."""
    answer = browser.get("/a", **{"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "http", "X-Real-IP": "6.6.6.6"})

    told = answer.json()
    assert answer.http_version == "HTTP/2"
    assert (told["client"], told["scheme"]) == ("127.0.0.1", "https")
    assert sorted(told["headers"]) == [
        ["host", f"{DOMAIN}:{browser.port}"],
        ["x-forwarded-for", "127.0.0.1"],
        ["x-forwarded-host", f"{DOMAIN}:{browser.port}"],
        ["x-forwarded-proto", "https"],
        ["x-real-ip", "127.0.0.1"],
    ]


def test_plain_http_and_aliases_lead_to_the_domain_for_good(browser: Browser, proxy: dict[str, object]) -> None:
    """308 keeps method, path and query; another name is nobody's."""
    there = f"https://{DOMAIN}:{browser.port}/a/b?c=d&e"
    with httpx.Client(base_url=f"http://127.0.0.1:{proxy['http_port']}") as client:
        asked = [client.post("/a/b?c=d&e", headers={"Host": name}) for name in (DOMAIN, WWW, "other.test")]
    assert [(one.status_code, one.headers.get("Location")) for one in asked] == [
        (308, there),
        (308, there),
        (421, None),
    ]
    www = browser.get("/a/b?c=d&e", name=WWW)
    assert (www.status_code, www.headers["Location"]) == (308, there)


def test_what_is_too_large_is_refused_in_words(browser: Browser) -> None:
    """By its announced size before a byte is read, and at the limit when it has none."""

    def endless() -> Iterator[bytes]:
        yield from (bytes(1 << 20) for _ in range(310))

    with browser.client() as client:
        url = f"https://{DOMAIN}:{browser.port}/"
        announced = client.post(
            url, headers={"Content-Length": str(310 << 20), "Accept": "application/json"}, content=endless()
        )
        streamed = client.post(url, content=endless())
    assert announced.status_code == streamed.status_code == 413
    assert announced.json()["message"] == "At most 300 MiB are accepted here. Nothing of it was carried out."


@pytest.mark.parametrize("way", ["cutover", "hold"])
def test_nothing_is_cut_by_a_deployment(app: LiveApp, browser: Browser, way: str) -> None:
    """Uploads of 200 MB, streamed answers and a crowd go through a cutover, and a hold with a migration.

    A websocket goes on over a cutover as long as requests in flight do; in a hold it is told goodbye.
    """
    before = browser.get("/").json()["release"]
    files = (
        {"migrate.py": MIGRATION.format(table="two")} if way == "hold" else {"app.py": FILES["app.py"] + "\n# two\n"}
    )
    revision = change(app, dict(files))
    caddy = psutil.Process(app.pid_of("proxy"))
    resident = caddy.memory_info().rss
    with crowd(browser), browser.websocket() as socket, ThreadPoolExecutor() as pool:
        assert socket.echo("a") == f"{before} a"
        with app.begun("deploy", revision) as deploying:
            assert deploying.read_until("step-done", "rehearse" if way == "cutover" else "schema")
            upload = pool.submit(post, browser, "/upload", slowly(UPLOAD_MIB))
            streams = [pool.submit(post, browser, "/stream")]
            if way == "cutover":
                assert deploying.read_until("step-done", "cutover")
                assert socket.echo("b") == f"{before} b"
            else:
                assert deploying.read_until("step-started", "hold")
                assert socket.read() == ""
                streams.append(pool.submit(post, browser, "/stream"))
            ended = deploying.end().must(0, "deployed")
        assert json.loads(upload.result()[1])["size"] == UPLOAD_MIB << 20
        releases = [one.result()[1].decode().rpartition(" ")[2] for one in streams]
    after = browser.get("/").json()["release"]
    assert int(after) > int(before)
    assert releases == ([before] if way == "cutover" else [before, after])
    assert caddy.memory_info().rss - resident < 100 << 20
    assert ("hold" in ended.steps("step-done")) == (way == "hold")
    with browser.websocket() as socket:
        assert socket.echo("c") == f"{after} c"


def post(browser: Browser, path: str, body: Iterable[bytes] = ()) -> tuple[int, bytes]:
    """One request over HTTP/2 on a connection of its own."""
    people = Http2(browser)
    try:
        return people.post(path, body)
    finally:
        people.close()


def slowly(mebibytes: int) -> Iterator[bytes]:
    """So much, in about two seconds."""
    for number in range(mebibytes):
        yield bytes(1 << 20)
        if number % 20 == 0:
            time.sleep(0.2)


def test_another_configuration_takes_effect_with_the_next_deployment(
    app: LiveApp, browser: Browser, proxy: dict[str, object]
) -> None:
    """A new alias is there after it, no connection was cut for it, and a rollback leaves it."""
    app.configure(proxy={**proxy, "aliases": [WWW, "old.test"]})
    pid = app.pid_of("proxy")
    with crowd(browser):
        done = app.deploy(change(app))
        assert done.note("proxy") == f"https://{DOMAIN}:{browser.port}"
        assert browser.get("/", name="old.test").status_code == 308
        app.change("rollback").must(0, "deployed")
        assert browser.get("/", name="old.test").status_code == 308
    assert app.pid_of("proxy") == pid


def test_what_caddy_will_not_take_leaves_the_old_one_in_force(
    app: LiveApp, browser: Browser, proxy: dict[str, object], tmp_path: Path
) -> None:
    """A certificate that is none is refused in words, and everything is as it was."""
    without = {key: value for key, value in proxy.items() if key != "certificates"}
    (tmp_path / "cert.pem").write_text("none")
    app.configure(proxy={**without, "certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "cert.pem")})
    try:
        with crowd(browser):
            done = app.change("deploy", change(app)).must(3, "undone")
    finally:
        app.configure(proxy=proxy)
    assert done.reference == "proxy-not-valid"
    assert "cert.pem" in done.out or "PEM" in done.out
    assert browser.get("/").status_code == 200


def test_a_deployer_killed_after_it_leaves_the_old_configuration(
    app: LiveApp, browser: Browser, proxy: dict[str, object]
) -> None:
    """The supervisor takes it back by itself."""
    before = (app.layout.proxy_home / "Caddyfile").read_bytes(), app.layout.proxy_kept.read_bytes()
    app.configure(proxy={**proxy, "aliases": [WWW, "killed.test"]})
    with crowd(browser):
        app.kill_at("step-started", "cutover", "deploy", change(app))
        app.configure(proxy=proxy)
        app.wait_until_whole()
    assert ((app.layout.proxy_home / "Caddyfile").read_bytes(), app.layout.proxy_kept.read_bytes()) == before
    with pytest.raises(httpx.ConnectError):
        browser.get("/", name="killed.test")


def test_in_maintenance_the_public_gets_a_page_and_deployments_go_on(app: LiveApp, browser: Browser) -> None:
    """503 for people and programs, the app for those who are allowed; through deployments and a killed proxy."""
    said = app.run("maintenance", "on", "--message", "Back at <noon>", status=0)
    assert "Back at <noon>" in said.out
    page = browser.get("/any", Accept="text/html,*/*")
    assert (page.status_code, page.headers["Retry-After"]) == (503, "300")
    assert page.text == "<h1>Ours</h1><p>Back at &lt;noon&gt;</p>"
    with browser.client() as client:
        told = client.post(f"https://{DOMAIN}:{browser.port}/", content=b"x", headers={"Accept": "application/json"})
    assert (told.status_code, told.json()["message"]) == (503, "Back at <noon>")

    done = app.deploy("--worktree")
    assert "maintenance is on" in str(done.last["troubles"])
    psutil.Process(app.pid_of("proxy")).kill()
    until(lambda: asks(browser) == 503)
    assert "maintenance is on" in str(app.status()["notes"])
    check = json.loads(app.run("check", "--only", "public", "--only", "response", "--format", "json").out)
    assert "maintenance is on" in json.dumps(check)

    app.run("maintenance", "on", "--allow", "127.0.0.1", status=0)
    assert browser.get("/").status_code == 200
    app.run("maintenance", "on", "--allow", "127.0.0.2", status=0)
    assert browser.get("/").text.endswith("Please come back in a few minutes.\n")
    app.run("maintenance", "off", status=0)
    assert browser.get("/").status_code == 200
    assert app.run("maintenance", "on", "--allow", "10.0.0.0/8").status == 2


def asks(browser: Browser) -> int:
    """The status, 0 while nobody listens."""
    try:
        return browser.get("/").status_code
    except httpx.HTTPError:
        return 0


def test_trusted_proxies_are_believed_and_nobody_behind_them(
    app: LiveApp, browser: Browser, proxy: dict[str, object]
) -> None:
    """Of what came through a load balancer the app is told the last address that is not a trusted one's."""
    app.configure(proxy={**proxy, "trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]})
    app.deploy(change(app))
    told = browser.get("/", **{"X-Forwarded-For": "6.6.6.6, 203.0.113.7, 10.1.2.3"}).json()
    assert told["client"] == "203.0.113.7"
    assert [value for name, value in told["headers"] if name == "x-forwarded-for"] == ["203.0.113.7"]


def test_without_a_certificate_a_deployment_succeeds_and_says_so(
    app: LiveApp, proxy: dict[str, object], browser: Browser
) -> None:
    """Before the DNS is set up the app is deployed all the same, and what is missing is told, and where to look."""
    app.configure(proxy={**proxy, "domain": "shop.invalid", "aliases": [], "certificates": "automatic"})
    begun = time.monotonic()
    done = app.deploy(change(app))
    notes = str(done.last["troubles"])
    assert "there is no certificate for shop.invalid yet" in notes
    assert "DNS" in notes
    assert time.monotonic() - begun < 60
    assert app.run("status").status == 0
    app.configure(proxy=proxy)
    app.deploy(change(app))
    assert browser.get("/").status_code == 200
