"""What strangers could use: debug modes, known secrets, open doors."""

from __future__ import annotations

from collections.abc import Iterator

from bulletproof.domain.doctor import Ill, Remedy
from bulletproof.domain.security import debug_settings, is_flasks, weak_secrets
from bulletproof.effects.listening import Listening, listening_to_all
from bulletproof.operations.checks.ground import Ground

_MAKE_SECRET = "python3 -c 'import secrets; print(secrets.token_hex(32))'"  # noqa: S105  it makes one
_DATABASES = {
    1433: "SQL Server",
    3306: "MySQL",
    5432: "PostgreSQL",
    5672: "RabbitMQ",
    6379: "Redis",
    9200: "Elasticsearch",
    11211: "memcached",
    27017: "MongoDB",
}


def debug(ground: Ground) -> Iterator[Ill]:
    """A framework in its debug mode."""
    today = ground.host.settings.today()
    for name in debug_settings(today):
        words = f"{name} is {today[name]} in the settings, which is for development"
        why = "an error shows strangers code, settings and secrets"
        if is_flasks(name):
            remedy = Remedy(words=f"unset {name}, without a dropped request", unset_names=(name,))
            yield Ill(words=words, why=why, remedy=remedy)
        else:
            yield Ill(words=words, why=why, command=f"bulletproof env set {name}=False")


def secret_key(ground: Ground) -> Iterator[Ill]:
    """A secret that is none."""
    for name, words in weak_secrets(ground.host.settings.today()):
        yield Ill(
            words=words,
            why="who knows it logs in as anybody; a new one logs everybody out, so it is left to you",
            command=f"{_MAKE_SECRET} | bulletproof env set {name}=-",
        )


def exposed_ports(ground: Ground) -> Iterator[Ill]:
    """The app or a database that listens to the whole network."""
    family = ground.status.family
    ours = frozenset(family.pids if family else ())
    for one in listening_to_all():
        if one.pid in ours:
            words = f"the app itself listens on port {one.port} of every network"
            why = "it is asked there without the proxy: no HTTPS, no limits, no log"
            yield Ill(words=words, why=why, command="bind it to 127.0.0.1 in its code; then bulletproof deploy")
        elif one.port in _DATABASES:
            yield _database(one)


def _database(one: Listening) -> Ill:
    kind = _DATABASES[one.port]
    return Ill(
        words=f"{kind} listens on port {one.port} of every network",
        why=f"it is {one.command}" if one.command else "",
        command=f"let {kind} listen on 127.0.0.1, and restart it; or close the port: ufw deny {one.port}",
    )
