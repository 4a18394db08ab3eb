"""What else a source tells of an app: its framework, its health route, the setting that holds its database's URL."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

import msgspec

from bulletproof.domain.python_module import Imported, Module

HEALTH_PATHS = ("/up", "/health", "/healthz")
"""Usual routes of a health check, the one that Bulletproof asks for by itself first."""

_URI_KEY = "SQLALCHEMY_DATABASE_URI"
_CONNECTING = {"create_engine", "create_async_engine"}
_DRIVERS = {"sqlite3", "psycopg", "psycopg2", "asyncpg"}
_ENGINES = {"sqlite3": "sqlite", "postgresql": "postgresql", "mysql": "mysql", "oracle": "oracle"}
"""The last part of a Django engine's name, and what it is usually called."""
_URL_SETTING = "DATABASE_URL"
"""What dj-database-url and django-environ read when they are told nothing else."""
_SETTINGS_MODULE = "DJANGO_SETTINGS_MODULE"
_ROUTES = {"route", "get", "add_url_rule", "add_api_route", "add_route", "Route", "APIRoute", "path"}
"""What registers a path: Flask's, FastAPI's, Starlette's and Django's."""
_GROUPS = {"Blueprint": "url_prefix", "APIRouter": "prefix"}
_GROUPING = {"register_blueprint": "url_prefix", "include_router": "prefix"}
"""What makes and what adds a group of routes, and the keyword that puts them below another path."""
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*")
_DATABASE_SETTING = re.compile(r"([A-Z0-9]+_)*(DATABASE|DB|POSTGRES|POSTGRESQL)_(URL|URI)")
_NOT_FOR_SERVERS = re.compile(r"(^|_)(DEV|DEVELOPMENT|TEST|TESTING)(_|$)")
_URL = re.compile(r"(sqlite|postgresql|postgres|mysql|mariadb|oracle|mssql)(\+\w+)?:")
_IN_MEMORY = re.compile(r"sqlite(\+\w+)?:(//$|.*:memory:)")
_SQLITE_FILE = re.compile(r"sqlite(\+\w+)?:///([^?]+)")
_WAL_STATEMENT = re.compile(r"journal_mode\W+wal")
_HOPS = 2
"""How many names are followed: one for `URI = settings.url`, one for `url = os.environ["DATABASE_URL"]`."""
_VALUES_FOLLOWED = 8


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was seen in a file."""

    what: str
    path: str
    line: int

    @property
    def where(self) -> str:
        """The place in words."""
        return f"{self.path}:{self.line}"


class DatabaseUse(msgspec.Struct, frozen=True, kw_only=True):
    """A place where the source says which database it uses."""

    setting: str
    """The environment variable that holds the URL; empty when it is written in the source."""
    kind: str
    """Such as `sqlite`, when the place itself tells."""
    path: str
    line: int
    file: str = ""
    """The file of an SQLite database, when the place itself tells."""
    is_certain: bool
    """The URL goes straight to the database's library, and does not only have a name like one."""


def database_kind(url: str) -> str:
    """The kind of database that a URL leads to, as it is usually called; empty when it is no such URL."""
    found = None if _IN_MEMORY.match(url) else _URL.match(url)
    return {"postgres": "postgresql"}.get(found[1], found[1]) if found else ""


def sqlite_file(url: str) -> str:
    """The file that an SQLite database's URL leads to, relative or absolute; empty when it is no such URL."""
    found = _SQLITE_FILE.match(url)
    return found[2] if found and database_kind(url) == "sqlite" else ""


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


def settings_module(module: Module) -> Sighting | None:
    """The settings that a Django project's file names: `os.environ.setdefault("DJANGO_SETTINGS_MODULE", ...)`."""
    for node in ast.walk(module.tree):
        named: tuple[ast.expr, ast.expr] | None = None
        match node:
            case ast.Call(func=ast.Attribute(attr="setdefault"), args=[key, value]):
                named = (key, value)
            case ast.Assign(targets=[ast.Subscript(slice=key)], value=value):
                named = (key, value)
        if named and _text(named[0]) == _SETTINGS_MODULE and (what := _text(named[1])):
            return Sighting(what=what, path=module.path, line=named[0].lineno)
    return None


def health_route(modules: Sequence[Module]) -> Sighting | None:
    """The route of the app that is made for a health check; None when its whole path cannot be seen."""
    moved = {name for module in modules for name in _moved_groups(module)}
    roots = {name for module in modules for name in _root_urls(module)}
    routes = [route for module in modules for route in _health_routes(module, moved, roots)]
    return min(routes, key=lambda route: HEALTH_PATHS.index(route.what.removesuffix("/")), default=None)


def sets_wal(modules: Sequence[Module]) -> bool:
    """Whether the source seems to put its SQLite database into WAL mode: in a statement, or as two words of a table."""
    for module in modules:
        texts = {text for node in ast.walk(module.tree) if (text := _text(node).casefold())}
        if any(map(_WAL_STATEMENT.search, texts)) or texts >= {"journal_mode", "wal"}:
            return True
    return False


def has_route(modules: Sequence[Module], path: str) -> bool:
    """Whether a decorator, or a list of routes, seems to register this path."""
    calls = (node for module in modules for node in ast.walk(module.tree) if isinstance(node, ast.Call))
    return any(_called_name(call) in _ROUTES and any(_text(one) == path for one in call.args[:1]) for call in calls)


def _health_routes(module: Module, moved: set[str], roots: set[str]) -> Iterator[Sighting]:
    mounted = set(_mounted(module))
    for node in ast.walk(module.tree):
        decorators = node.decorator_list if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else []
        is_rule = isinstance(node, ast.Call) and _called_name(node) in _ROUTES - {"route", "get"}
        for call in (*decorators, *((node,) if is_rule else ())):
            if isinstance(call, ast.Call) and _called_name(call) in _ROUTES and call.args and id(call) not in mounted:
                path = _path(call, module, roots)
                if path.removesuffix("/") in HEALTH_PATHS and _base_name(call) not in moved and _answers_get(call):
                    yield Sighting(what=path, path=module.path, line=call.lineno)


def _path(call: ast.Call, module: Module, roots: set[str]) -> str:
    """The whole path of a route, empty when it cannot be seen; Django's have no slash in front."""
    if _called_name(call) == "path":
        return f"/{_text(call.args[0])}" if module.name in roots and not isinstance(call.func, ast.Attribute) else ""
    of_endpoint = _called_name(call) == "add_route" and not _text(call.args[0])
    return "" if of_endpoint else _text(call.args[0])


def _root_urls(module: Module) -> Iterator[str]:
    """The module that a Django project's settings name as the one with the topmost paths."""
    for name, value in _assignments(module.tree):
        if name == "ROOT_URLCONF" and (text := _text(value)):
            yield text


def _mounted(module: Module) -> Iterator[int]:
    """The routes that stand below the path of a Mount."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and _called_name(node) == "Mount":
            yield from (id(inner) for inner in ast.walk(node) if isinstance(inner, ast.Call))


def _moved_groups(module: Module) -> Iterator[str]:
    """Names of the blueprints and routers whose routes stand below another path than they say."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call() as call):
                if _keyword(call, _GROUPS.get(_called_name(call), "")):
                    yield name
            case ast.Call(args=[ast.Name() | ast.Attribute() as group, *_]):
                if _keyword(node, _GROUPING.get(_called_name(node), "")):
                    yield from _names_of(group)


def _names_of(group: ast.expr) -> tuple[str, ...]:
    """What a group of routes may be called where its routes are: `health.router` is `router` there."""
    return (_last_name(group), _last_name(group.value)) if isinstance(group, ast.Attribute) else (_last_name(group),)


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
        if isinstance(node, ast.expr) and (use := _django_use(node, module)):
            yield use
        for url in _urls(node):
            parts = list(_parts(url, assigned))
            kinds = [kind for part, _ in parts if (kind := database_kind(_text(part)))]
            settings = [name for part, is_whole in parts if is_whole and (name := _setting(part))]
            if settings or kinds:
                yield DatabaseUse(
                    setting=settings[0] if settings else "",
                    kind=kinds[0] if kinds else "",
                    file=next((file for part, _ in parts if (file := sqlite_file(_text(part)))), ""),
                    path=module.path,
                    line=url.lineno,
                    is_certain=True,
                )
        if isinstance(node, ast.expr) and _DATABASE_SETTING.fullmatch(name := _setting(node)):
            yield DatabaseUse(setting=name, kind="", path=module.path, line=node.lineno, is_certain=False)


def _django_use(node: ast.expr, module: Module) -> DatabaseUse | None:
    """What an entry of Django's DATABASES says, written out or by dj-database-url or django-environ."""
    setting, kind = "", ""
    match node:
        case ast.Dict(keys=keys, values=values):
            entry = {_text(key): value for key, value in zip(keys, values, strict=True) if key}
            kind = _engine(entry)
            if not kind:
                return None
            inside = (inner for inner in ast.walk(entry["NAME"]) if isinstance(inner, ast.expr))
            setting = next((name for one in inside if _DATABASE_SETTING.fullmatch(name := _setting(one))), "")
        case ast.Call() if _called_name(node) == "config" and "dj_database_url" in {_base_name(node), _home(module)}:
            setting = _text(_keyword(node, "env") or ast.Constant("")) or _URL_SETTING
            kind = database_kind(_first_text(_keyword(node, "default")))
        case ast.Call(func=ast.Attribute(attr="db" | "db_url"), args=[]) if "env" in _base_name(node).lower():
            setting, kind = _URL_SETTING, database_kind(_first_text(_keyword(node, "default")))
        case _:
            return None
    return DatabaseUse(setting=setting, kind=kind, path=module.path, line=node.lineno, is_certain=True)


def _engine(entry: dict[str, ast.expr]) -> str:
    """The kind of database of an entry of DATABASES; empty when it is none."""
    engine = _text(entry["ENGINE"]).rpartition(".")[2] if {"ENGINE", "NAME"} <= entry.keys() else ""
    return _ENGINES.get(engine, "")


def _home(module: Module) -> str:
    """Where the module has a function `config` from."""
    imports = (one for one in module.bindings.get("config", ()) if isinstance(one, Imported))
    return next((one.module for one in imports), "")


def _first_text(expression: ast.expr | None) -> str:
    """The text that an expression begins with, such as `sqlite:///` of an f-string."""
    nodes = ast.walk(expression) if expression else ()
    return next((text for node in nodes if (text := _text(node))), "")


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
