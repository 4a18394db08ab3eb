"""What else a source tells of an app: its framework, its health route, the setting that holds its database's URL."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bulletproof.domain.python_module import Module

HEALTH_PATHS = ("/up", "/health", "/healthz")
"""Usual routes of a health check, the one that Bulletproof asks for by itself first."""

_URI_KEY = "SQLALCHEMY_DATABASE_URI"
_CONNECTING = {"create_engine", "create_async_engine"}
_DRIVERS = {"sqlite3", "psycopg", "psycopg2", "asyncpg"}
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*")
_DATABASE_SETTING = re.compile(r"([A-Z0-9]+_)*(DATABASE|DB|POSTGRES|POSTGRESQL)_(URL|URI)")
_NOT_FOR_SERVERS = re.compile(r"(^|_)(DEV|DEVELOPMENT|TEST|TESTING)(_|$)")
_URL = re.compile(r"(sqlite|postgresql|postgres|mysql|mariadb|oracle|mssql)(\+\w+)?:")
_IN_MEMORY = re.compile(r"sqlite(\+\w+)?:(//$|.*:memory:)")
_HOPS = 2
"""How many names are followed: one for `URI = settings.url`, one for `url = os.environ["DATABASE_URL"]`."""
_VALUES_FOLLOWED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """Something that was seen in a file."""

    what: str
    path: str
    line: int

    @property
    def where(self) -> str:
        """The place in words."""
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUse:
    """A place where the source says which database it uses."""

    setting: str
    """The environment variable that holds the URL; empty when it is written in the source."""
    kind: str
    """Such as `sqlite`, when the place itself tells."""
    path: str
    line: int
    is_certain: bool
    """The URL goes straight to the database's library, and does not only have a name like one."""


def database_kind(url: str) -> str:
    """The kind of database that a URL leads to, as it is usually called; empty when it is no such URL."""
    found = None if _IN_MEMORY.match(url) else _URL.match(url)
    return {"postgres": "postgresql"}.get(found[1], found[1]) if found else ""


def imported_packages(modules: Sequence[Module]) -> dict[str, Sighting]:
    """The packages that the source imports, with where it does so first."""
    packages: dict[str, Sighting] = {}
    for module in modules:
        for node in ast.walk(module.tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in names:
                package = name.partition(".")[0]
                packages.setdefault(package, Sighting(what=package, path=module.path, line=getattr(node, "lineno", 1)))
    return packages


def health_route(modules: Sequence[Module]) -> Sighting | None:
    """The route of the app that is made for a health check; None when its whole path cannot be seen."""
    moved = {name for module in modules for name in _moved_blueprints(module)}
    routes = [route for module in modules for route in _health_routes(module, moved)]
    return min(routes, key=lambda route: HEALTH_PATHS.index(route.what), default=None)


def _health_routes(module: Module, moved: set[str]) -> Iterator[Sighting]:
    for node in ast.walk(module.tree):
        decorators = node.decorator_list if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else []
        rules = [node] if isinstance(node, ast.Call) and _called_name(node) == "add_url_rule" else []
        for call in (*decorators, *rules):
            if isinstance(call, ast.Call) and _called_name(call) in {"route", "get", "add_url_rule"}:
                path = _text(call.args[0]) if call.args else ""
                if path in HEALTH_PATHS and _base_name(call) not in moved and _answers_get(call):
                    yield Sighting(what=path, path=module.path, line=call.lineno)


def _moved_blueprints(module: Module) -> Iterator[str]:
    """Names of the blueprints whose routes stand below another path than they say."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call() as call):
                if _called_name(call) == "Blueprint" and _keyword(call, "url_prefix"):
                    yield name
            case ast.Call(args=[ast.Name(id=name) | ast.Attribute(attr=name), *_]):
                if _called_name(node) == "register_blueprint" and _keyword(node, "url_prefix"):
                    yield name


def _answers_get(call: ast.Call) -> bool:
    methods = _keyword(call, "methods")
    return methods is None or any(_text(node).upper() == "GET" for node in ast.walk(methods))


def database_use(modules: Sequence[Module]) -> DatabaseUse | None:
    """How the source learns of its database: what is certain first, then a setting over a written URL."""
    assigned: dict[str, list[ast.expr]] = {}
    for module in modules:
        for name, value in _assignments(module.tree):
            assigned.setdefault(name, []).append(value)
    uses = [use for module in modules for use in _database_uses(module, assigned)]
    return min(uses, key=_doubt, default=None)


def _doubt(use: DatabaseUse) -> tuple[bool, ...]:
    is_for_others = bool(_NOT_FOR_SERVERS.search(use.setting))
    return (not use.setting, not use.is_certain, is_for_others, use.setting != "DATABASE_URL", not use.kind)


def _database_uses(module: Module, assigned: dict[str, list[ast.expr]]) -> Iterator[DatabaseUse]:
    for node in ast.walk(module.tree):
        for url in _urls(node):
            parts = list(_parts(url, assigned))
            kinds = [kind for part, _ in parts if (kind := database_kind(_text(part)))]
            settings = [name for part, is_whole in parts if is_whole and (name := _setting(part))]
            if settings or kinds:
                yield DatabaseUse(
                    setting=settings[0] if settings else "",
                    kind=kinds[0] if kinds else "",
                    path=module.path,
                    line=url.lineno,
                    is_certain=True,
                )
        if isinstance(node, ast.expr) and _DATABASE_SETTING.fullmatch(name := _setting(node)):
            yield DatabaseUse(setting=name, kind="", path=module.path, line=node.lineno, is_certain=False)


def _urls(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions that the node hands to the database's library as its URL."""
    match node:
        case ast.Assign(targets=targets, value=value) if any(_is_uri_key(target) for target in targets):
            yield value
        case ast.AnnAssign(target=target, value=ast.expr() as value) if _is_uri_key(target):
            yield value
        case ast.keyword(arg=str(name), value=value) if name == _URI_KEY:
            yield value
        case ast.Dict(keys=keys, values=values):
            yield from (value for key, value in zip(keys, values, strict=True) if key and _text(key) == _URI_KEY)
        case ast.Call(args=[first, *_]) if _called_name(node) in _CONNECTING or _is_driver_call(node):
            yield first


def _is_uri_key(target: ast.expr) -> bool:
    match target:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name == _URI_KEY
        case ast.Subscript(slice=key):
            return _text(key) == _URI_KEY
    return False


def _is_driver_call(call: ast.Call) -> bool:
    return _called_name(call) == "connect" and _base_name(call) in _DRIVERS


def _parts(url: ast.expr, assigned: dict[str, list[ast.expr]]) -> Iterator[tuple[ast.expr, bool]]:
    """The expression, all inside it, what names in it were assigned; and whether each may be the URL as a whole.

    A setting inside `f"postgresql://{user}@{host}"` is not the URL, and the texts of a `replace` are no URLs either.
    """
    waiting: list[tuple[ast.AST, int, bool]] = [(url, _HOPS, True)]
    while waiting:
        node, hops, is_whole = waiting.pop()
        inside = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Call) and _called_name(node) == "replace":
            inside = [node.func]
        is_whole = is_whole and not _assembles(node)
        waiting += [(child, hops, is_whole) for child in reversed(inside)]
        if isinstance(node, ast.expr):
            yield node, is_whole
            name = _last_name(node)
            values = assigned.get(name, [])[:_VALUES_FOLLOWED] if hops and name != _URI_KEY else []
            waiting += [(value, hops - 1, is_whole) for value in reversed(values)]


def _assembles(node: ast.AST) -> bool:
    """Whether the node puts a text together from others."""
    is_joining = isinstance(node, ast.Call) and _called_name(node) in {"format", "join"}
    return is_joining or isinstance(node, ast.JoinedStr | ast.BinOp)


def _setting(expression: ast.expr) -> str:
    """The environment variable that the expression reads, by its look; Flask's own configuration is none."""
    key: ast.expr
    match expression:
        case ast.Subscript(value=base, slice=key):
            pass
        case ast.Call(func=ast.Attribute(value=base), args=[key, *_]):
            pass
        case ast.Call(func=ast.Name() as base, args=[key, *_]):
            name = _text(key)
            return name if _SETTING.fullmatch(name) else ""
        case _:
            return ""
    name = _text(key)
    return name if _SETTING.fullmatch(name) and _last_name(base) != "config" else ""


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((name, node.value) for target in targets if (name := _last_name(target)))


def _called_name(call: ast.Call) -> str:
    return _last_name(call.func)


def _base_name(call: ast.Call) -> str:
    return _last_name(call.func.value) if isinstance(call.func, ast.Attribute) else ""


def _last_name(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
