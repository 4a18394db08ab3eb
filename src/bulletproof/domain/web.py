"""The app's web process: what is run for a release, as a pure function."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bulletproof.domain.config import AppConfig, Server
from bulletproof.domain.layout import Layout
from bulletproof.domain.process import ProcessSpec, web_name
from bulletproof.domain.settings import database_url

_CONTROL_SOCKET_SINCE = (25, 1)
"""gunicorn from 25.1 opens a control socket in $HOME unless told not to; earlier ones do not know the option."""

_GUNICORN_STOP = "SIGQUIT"
"""Its quick way to end. An instance is drained before it is stopped, so no request is in it; and with SIGTERM a worker
that waits for requests only looks up once a second: 1.1-1.4 s to its end on two idle cores, with SIGQUIT 0.3-0.4 s."""


def web_process(
    layout: Layout, number: int, release: str, config: AppConfig, entry: str, *, gunicorn: str, database: dict[str, str]
) -> ProcessSpec:
    """What runs `release` as the instance of deployment `number`.

    `gunicorn` is its version, if it is used; `database` tells the app its database's URL, over its settings.
    """
    server = _uvicorn if config.app.server is Server.UVICORN else _gunicorn
    return ProcessSpec(
        name=web_name(number),
        argv=(str(layout.venv(release) / "bin" / "python"), *server(layout, number, config, entry, gunicorn)),
        folder=layout.source(release),
        log=layout.web_log(number),
        environment=app_environment(layout, number, release, database),
        settings=layout.settings(number),
        runtime=layout.instance(number),
        stop_signal="SIGTERM" if server is _uvicorn else _GUNICORN_STOP,
        stop_seconds=config.drain.stop_seconds,
    )


def app_environment(layout: Layout, number: int, release: str, database: Mapping[str, str]) -> dict[str, str]:
    """What every process of deployment `number` gets besides its settings."""
    return {
        **surroundings(layout.source(release), layout.venv(release), layout.data),
        "BULLETPROOF_RELEASE": release,
        "BULLETPROOF_DEPLOYMENT": str(number),
        "PYTHONUNBUFFERED": "1",
        **database,
    }


def surroundings(source: Path, venv: Path, home: Path) -> dict[str, str]:
    """The environment that everything of the app runs in, besides its settings: nothing of ours leaks into it."""
    return {
        "PATH": f"{venv / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        # A package may lie in src/; a folder that is not there does no harm.
        "PYTHONPATH": str(source / "src"),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def database_setting(settings: Mapping[str, str], layout: Layout, config: AppConfig) -> dict[str, str]:
    """The setting that points the app at the one database in the data folder; none when its database is not SQLite."""
    setting = config.database.setting
    url = database_url(settings.get(setting), str(layout.data / config.database.file))
    return {setting: url} if url else {}


def without_control_socket(version: str) -> tuple[str, ...]:
    """What keeps a gunicorn of that version from opening one."""
    known = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return ("--no-control-socket",) if known >= _CONTROL_SOCKET_SINCE else ()


def _gunicorn(layout: Layout, number: int, config: AppConfig, entry: str, version: str) -> tuple[str, ...]:
    return (
        "-m",
        "gunicorn",
        f"--workers={config.app.workers}",
        *(("--worker-class=gthread", f"--threads={config.app.threads}") if config.app.threads > 1 else ()),
        f"--bind=unix:{layout.web_socket(number)}",
        f"--timeout={config.app.timeout_seconds:.0f}",
        f"--graceful-timeout={config.drain.stop_seconds:.0f}",
        # Only the proxy reaches the socket, so its word on address, scheme and host is taken.
        "--forwarded-allow-ips=*",
        "--worker-tmp-dir=/dev/shm",
        *without_control_socket(version),
        entry,
    )


def _uvicorn(layout: Layout, number: int, config: AppConfig, entry: str, _: str) -> tuple[str, ...]:
    factory = entry.endswith("()")
    return (
        "-m",
        "uvicorn",
        f"--workers={config.app.workers}",
        f"--uds={layout.web_socket(number)}",
        f"--timeout-graceful-shutdown={config.drain.stop_seconds:.0f}",
        "--proxy-headers",
        "--forwarded-allow-ips=*",
        "--no-access-log",
        *(("--factory",) if factory else ()),
        entry.removesuffix("()"),
    )
