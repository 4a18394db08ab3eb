"""The entry: which object or factory of a source a server loads, chosen from what its files say."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Sequence

import msgspec
from msgspec.structs import replace

from bulletproof.domain.frameworks import ASGI, DJANGO, FLASK, WSGI, Framework
from bulletproof.domain.python_module import Binding, BrokenModule, Imported, Module, top_level
from bulletproof.domain.python_traits import settings_module
from bulletproof.domain.web_apps import FACTORY_NAMES, OBJECT_NAMES, Apps, Origin, plain_app, takes_no_argument
from bulletproof.errors import StepFailed

SERVER_MODULES = ("wsgi", "asgi", "run", "app", "main", "application", "server", "autoapp")
"""Files that people write for a server to load, the most usual first."""

_BY_NAME = {"wsgi": WSGI, "asgi": ASGI}
"""Files whose name says what their `app` or `application` is, even where that comes from an installed package."""

_CODE_COLUMNS = 60
_LOOKED_FOR = (
    "looked for: app or application, made with Flask(...), FastAPI(...), get_wsgi_application() and the like, or with"
    " create_app(), or a function of environ and start_response, in wsgi.py, asgi.py, run.py, app.py, main.py or a"
    " package, for a function create_app or make_app that needs no arguments, and for what wsgi.py or asgi.py has from"
    " an installed package"
)


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a server could load."""

    entry: str
    """`module:object` or `module:factory()`."""
    path: str
    line: int
    code: str
    """The line that makes it."""
    import_folder: str = ""
    """The folder of the source that must be on Python's path, when it is not the source itself."""
    framework: Framework = FLASK

    @property
    def reason(self) -> str:
        """Where it was seen."""
        return f"{self.path}:{self.line}: {self.code}"


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """Something that looks like an app and that a server cannot load."""

    path: str
    line: int
    words: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.words}"


class EntrySearch(msgspec.Struct, frozen=True, kw_only=True):
    """What the search came to."""

    chosen: Candidate | None
    """The one that is clearly better than all others."""
    candidates: tuple[Candidate, ...]
    """One for every app that was found, the likeliest first."""
    rejected: tuple[Rejected, ...]


class _Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate with what it is judged by."""

    candidate: Candidate
    origin: Origin
    rank: tuple[int, ...]
    """Among all that lead to the same app, the lowest is taken."""
    tier: int
    """Among different apps the lowest tier wins; two apps in it are a question for a person."""


def search(modules: Sequence[Module], broken: Sequence[BrokenModule], flask_app: str = "") -> EntrySearch:
    """Look through a source's modules; `flask_app` is what the project's own FLASK_APP says."""
    apps = Apps(modules)
    seen: list[_Seen] = []
    rejected = [Rejected(path=file.path, line=file.line, words=f"not Python: {file.words}") for file in broken]
    for module in modules:
        for found in _found_in(module, apps):
            if isinstance(found, Rejected):
                rejected.append(found)
            else:
                seen.append(_wished(found, flask_app))
    if not seen:
        seen = [found for module in modules for found in _from_packages(module, apps)]
    best = _best_of_each_app(seen)
    is_clear = len(best) == 1 or (len(best) > 1 and best[0].tier < best[1].tier)
    return EntrySearch(
        chosen=best[0].candidate if is_clear else None,
        candidates=tuple(app.candidate for app in best),
        rejected=tuple(sorted(set(rejected), key=lambda one: (one.path, one.line, one.words))),
    )


def the_one(found: EntrySearch, *, hint: str = "") -> Candidate:
    """The entry to load; raises StepFailed `entry-ambiguous` or `entry-not-found` with the line to write."""
    if found.chosen:
        return found.chosen
    if not found.candidates:
        raise StepFailed(
            "entry-not-found",
            "no app that a server can load was found in the source",
            hint=hint or 'write app.entry = "MODULE:APP" into bulletproof.toml',
            context=(_LOOKED_FOR, *map(str, found.rejected)),
        )
    widest = max(len(candidate.entry) for candidate in found.candidates) + 2
    lines = (f"app.entry = {json.dumps(one.entry):{widest}}  # {one.reason}" for one in found.candidates)
    raise StepFailed(
        "entry-ambiguous",
        f"{len(found.candidates)} apps were found in the source, and none is clearly the one to serve",
        hint=hint or "write one of these lines into bulletproof.toml",
        context=tuple(lines),
    )


def _best_of_each_app(seen: Sequence[_Seen]) -> list[_Seen]:
    """For each app the best way to load it, with the lowest tier of all its ways; the likeliest app first."""
    ways: dict[Origin, list[_Seen]] = {}
    for one in seen:
        ways.setdefault(one.origin, []).append(one)
    best = [replace(min(those, key=_rank), tier=min(one.tier for one in those)) for those in ways.values()]
    return sorted(best, key=lambda one: (one.tier, one.rank, one.candidate.entry))


def _rank(one: _Seen) -> tuple[object, ...]:
    return (one.rank, one.candidate.entry)


def _wished(one: _Seen, flask_app: str) -> _Seen:
    """The same, before all others when FLASK_APP names it."""
    module, _, name = flask_app.strip().partition(":")
    module = module.removeprefix("./").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    own_module, _, own_name = one.candidate.entry.partition(":")
    modules = {own_module, f"{one.candidate.import_folder}.{own_module}"}
    is_named = module in modules and name.partition("(")[0] in {"", own_name.removesuffix("()")}
    return replace(one, tier=one.tier % 2 - 2) if is_named else one


def _found_in(module: Module, apps: Apps) -> Iterator[_Seen | Rejected]:
    """The module's candidates, and what a server could not load of it."""
    try:
        found = [*_objects(module, apps), *_factories(module, apps)]
        yield from found or _script_objects(module, apps)
    except RecursionError:
        yield Rejected(path=module.path, line=1, words="it is nested too deeply to be understood")


def _why_not_loadable(module: Module, apps: Apps) -> Rejected | None:
    """Why a server cannot load anything of this file."""
    line, words = 1, ""
    if not module.name:
        words = "the name of the file or of its folder cannot be imported"
    elif apps.modules[module.name] is not module:
        words = f"{apps.modules[module.name].path} has the same name and is the one that Python imports"
    for statement in top_level(module):
        if isinstance(statement, ast.Expr) and apps.is_run(statement.value, module):
            line = statement.lineno
            words = f'{module.line(line)} would run on import; put it below if __name__ == "__main__":'
    return Rejected(path=module.path, line=line, words=words) if words else None


def _objects(module: Module, apps: Apps) -> Iterator[_Seen | Rejected]:
    for name, bindings in module.bindings.items():
        usable = [one for one in bindings if _is_usable(name, one, module)]
        if usable and name[0].isascii() and (origin := apps.object(module, name)):
            line = usable[0].line if isinstance(usable[0], Imported) else usable[0].lineno
            made_in = apps.modules[origin.module]
            reason = _why_not_loadable(module, apps) or _why_not_loadable(made_in, apps)
            yield reason or _lost_settings(module, origin, apps) or _seen(module, name, line, origin)


def _from_packages(module: Module, apps: Apps) -> Iterator[_Seen]:
    """What a file for a server has from an installed package, which cannot be looked into."""
    framework = _BY_NAME.get(module.name)
    for name in OBJECT_NAMES if framework else ():
        for binding in module.bindings.get(name, [])[-1:]:
            if framework and apps.is_from_outside(binding, module):
                line = binding.line if isinstance(binding, Imported) else binding.lineno
                yield _seen(module, name, line, Origin(module.name, line, framework))


def _lost_settings(module: Module, origin: Origin, apps: Apps) -> Rejected | None:
    """Why a Django app cannot be loaded from here: the settings that its file names are below another folder."""
    made_in = apps.modules[origin.module]
    sighting = settings_module(made_in) if origin.framework.package == DJANGO.package else None
    above = made_in.name.rpartition(".")[0].partition(".")[0]
    if sighting is None or sighting.what in apps.modules or f"{above}.{sighting.what}" not in apps.modules:
        return None
    words = f"{sighting.what} cannot be imported from here: cd {above}, and use bulletproof there"
    return Rejected(path=module.path, line=sighting.line, words=words)


def _is_usable(name: str, binding: Binding, module: Module) -> bool:
    """Whether what is bound can be an app itself, and does not only make one."""
    if isinstance(binding, ast.FunctionDef | ast.AsyncFunctionDef):
        return plain_app(name, binding) is not None
    return isinstance(binding, ast.expr) or _is_handed_on(binding, module)


def _is_handed_on(binding: Binding, module: Module) -> bool:
    """Whether an app that is only imported counts: in files made for a server, not in every view that needs it."""
    return isinstance(binding, Imported) and module.depth == 0 and module.stem in SERVER_MODULES


def _factories(module: Module, apps: Apps) -> Iterator[_Seen | Rejected]:
    for name, bindings in module.bindings.items():
        function = bindings[-1]
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) and name[0].isascii() and name[0] != "_":
            origin = apps.factory(module, name)
            if not origin:
                continue
            if takes_no_argument(function):
                yield _why_not_loadable(module, apps) or _seen(module, f"{name}()", function.lineno, origin)
            else:
                words = f"{name} needs arguments; make a file wsgi.py with app = {name}(...), called with yours"
                yield Rejected(path=module.path, line=function.lineno, words=words)


def _script_objects(module: Module, apps: Apps) -> Iterator[Rejected]:
    for name, bindings in module.script_bindings.items():
        for binding in bindings:
            if isinstance(binding, ast.expr) and apps.made_by(binding, module):
                words = f"{name} is made only when the file is run as a script"
                yield Rejected(path=module.path, line=binding.lineno, words=words)


def _seen(module: Module, name: str, line: int, origin: Origin) -> _Seen:
    code = module.line(line)
    candidate = Candidate(
        entry=f"{module.name}:{name}",
        path=module.path,
        line=line,
        code=code if len(code) <= _CODE_COLUMNS else f"{code[: _CODE_COLUMNS - 3]}...",
        import_folder=module.import_folder,
        framework=origin.framework,
    )
    return _Seen(candidate=candidate, origin=origin, rank=_module_rank(module, name), tier=_tier(module, name))


def _module_rank(module: Module, name: str) -> tuple[int, ...]:
    """How fit for a server: a file made for it, else where the app is made, a factory, and last any script."""
    is_server_module = module.stem in SERVER_MODULES and not module.is_package
    is_factory = name.endswith("()")
    kind = 2 if is_factory else 0 if is_server_module else 1 if module.is_package else 3
    order = SERVER_MODULES.index(module.stem) if module.stem in SERVER_MODULES else len(SERVER_MODULES)
    return (kind, module.depth, order, _name_order(name))


def _tier(module: Module, name: str) -> int:
    """How usual the place and the name of an app are; an app is compared with another by this alone."""
    is_usual_place = module.depth == 0 and (module.is_package or module.stem in SERVER_MODULES)
    place = 0 if module.stem == "wsgi" else 1 if is_usual_place else 2
    return 2 * place + (0 if _name_order(name) < len(_USUAL_NAMES) else 1)


_USUAL_NAMES = (*OBJECT_NAMES, *(f"{name}()" for name in FACTORY_NAMES))


def _name_order(name: str) -> int:
    return _USUAL_NAMES.index(name) if name in _USUAL_NAMES else len(_USUAL_NAMES)
