"""Which names of a source stand for a web app or for a function that makes one, followed from file to file."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from bulletproof.domain.frameworks import ASGI, FLASK, FRAMEWORKS, WSGI, Framework, made_with
from bulletproof.domain.python_module import Binding, Imported, Module, inner_imports

OBJECT_NAMES = ("app", "application")
"""What an app is usually called, and what Flask, gunicorn and uvicorn look for."""
FACTORY_NAMES = ("create_app", "make_app")

_ASGI_PARAMETERS = ["scope", "receive", "send"]
"""What an ASGI app is called with (asgi.readthedocs.io/en/latest/specs/main.html)."""
_WSGI_PARAMETERS = ["environ", "start_response"]
"""What a WSGI app is called with, by the names that PEP 3333 gives them and everybody uses."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Origin(msgspec.Struct, frozen=True):
    """Where an app is made; what leads to the same origin is the same app."""

    module: str
    line: int
    framework: Framework = FLASK


class _Target(msgspec.Struct, frozen=True):
    """What an expression names: something that is bound in a module of the source, or a thing from outside."""

    module: Module | None
    name: str
    """The name in the module; of a thing from outside the whole dotted name."""


class Apps:
    """The apps of a source's modules."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self.modules: dict[str, Module] = {}
        """By name; where a package and a file beside it share one, Python imports the package."""
        for module in sorted(modules, key=lambda one: (not one.is_package, one.path)):
            self.modules.setdefault(module.name, module)
        self._known: dict[tuple[str, str], Origin | None] = {}
        self._imported_inside: dict[str, dict[str, list[Binding]]] = {}

    def object(self, module: Module, name: str) -> Origin | None:
        """The app that the name stands for in the module, if it stands for one."""
        bindings = module.bindings.get(name, [])
        apps = (self._bound_app(binding, name, module) for binding in bindings)
        return self._once((module.path, name), lambda: next(filter(None, apps), None))

    def factory(self, module: Module, name: str) -> Origin | None:
        """The app that calling this name makes, if the module defines or imports such a function."""
        made = (self._bound_factory(binding, module) for binding in module.bindings.get(name, [])[::-1])
        return self._once((module.path, f"{name}()"), lambda: next(filter(None, made), None))

    def made_by(self, expression: ast.expr, module: Module) -> Origin | None:
        """The app that the expression makes or names."""
        return self._app(expression, module, {}, may_wrap=False)

    def is_from_outside(self, binding: Binding, module: Module) -> bool:
        """Whether it is imported from, or made by calling, something that does not lie in the source."""
        if isinstance(binding, Imported):
            return bool(binding.name) and binding.module.partition(".")[0] not in self.modules
        target = self._target(binding.func, module) if isinstance(binding, ast.Call) else None
        return target is not None and target.module is None and target.name.partition(".")[0] not in self.modules

    def is_run(self, expression: ast.expr, module: Module) -> bool:
        """Whether the expression starts a server: `app.run()` or `socketio.run(app)`."""
        match expression:
            case ast.Call(func=ast.Attribute(value=base, attr="run"), args=args):
                return any(self.made_by(one, module) for one in (base, *args))
        return False

    def _once(self, key: tuple[str, str], find: Callable[[], Origin | None]) -> Origin | None:
        """Find it the first time only; names that lead to one another come to an end so, at nothing."""
        if key not in self._known:
            self._known[key] = None
            self._known[key] = find()
        return self._known[key]

    def _inside(self, module: Module) -> dict[str, list[Binding]]:
        """What the module imports inside its functions; read once, as it takes a walk through the whole file."""
        if module.path not in self._imported_inside:
            self._imported_inside[module.path] = inner_imports(module)
        return self._imported_inside[module.path]

    def _bound_app(self, binding: Binding, name: str, module: Module) -> Origin | None:
        if isinstance(binding, ast.expr):
            return self._app(binding, module, {}, may_wrap=name in OBJECT_NAMES)
        if isinstance(binding, ast.FunctionDef | ast.AsyncFunctionDef):
            framework = plain_app(name, binding)
            return Origin(module.name, binding.lineno, framework) if framework else None
        if isinstance(binding, Imported) and binding.name and (other := self.modules.get(binding.module)):
            return self.object(other, binding.name)
        return None

    def _app(
        self, expression: ast.expr, module: Module, local: Mapping[str, ast.expr], *, may_wrap: bool
    ) -> Origin | None:
        """The app behind an expression; `may_wrap` lets it be an argument too, as in `ProxyFix(app)`."""
        match expression:
            case ast.Call(func=func):
                made = self._called(func, module, expression.lineno)
                return made or (self._wrapped(expression, module, local) if may_wrap else None)
            case ast.IfExp(body=body, orelse=orelse):
                options = (self._app(one, module, local, may_wrap=may_wrap) for one in (body, orelse))
                return next(filter(None, options), None)
            case ast.Name(id=name) if name in local:
                others = {key: value for key, value in local.items() if key != name}
                return self._app(local[name], module, others, may_wrap=may_wrap)
            case ast.Name() | ast.Attribute():
                target = self._target(expression, module)
                return self.object(target.module, target.name) if target and target.module else None
        return None

    def _wrapped(self, call: ast.Call, module: Module, local: Mapping[str, ast.expr]) -> Origin | None:
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        # A router of protocols is given its apps in a dictionary.
        arguments = [value for one in given for value in (one.values if isinstance(one, ast.Dict) else (one,))]
        bare = (one.value if isinstance(one, ast.Attribute) and one.attr == "wsgi_app" else one for one in arguments)
        return next(filter(None, (self._app(one, module, local, may_wrap=True) for one in bare)), None)

    def _called(self, func: ast.expr, module: Module, line: int) -> Origin | None:
        """The app that calling this makes."""
        if framework := self._maker(func, module):
            return Origin(module.name, line, framework)
        target = self._target(func, module)
        return self.factory(target.module, target.name) if target and target.module else None

    def _bound_factory(self, binding: Binding, module: Module) -> Origin | None:
        if isinstance(binding, ast.FunctionDef | ast.AsyncFunctionDef):
            return self._made_in(binding, module)
        if isinstance(binding, Imported) and binding.name and (other := self.modules.get(binding.module)):
            return self.factory(other, binding.name)
        return None

    def _made_in(self, function: Function, module: Module) -> Origin | None:
        """The app that the function returns; a factory by name or annotation is believed when that cannot be seen."""
        local = {**dict(_assigned(function)), **_parameters(function)}
        returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value]
        is_factory_name = function.name in FACTORY_NAMES
        for expression in returned:
            if origin := self._app(expression, module, local, may_wrap=is_factory_name):
                return origin
        annotated = self._maker(function.returns, module) if function.returns is not None else None
        believed = annotated or (_used_framework(module) if is_factory_name else None)
        return Origin(module.name, function.lineno, believed) if returned and believed else None

    def _maker(self, expression: ast.expr, module: Module) -> Framework | None:
        """The framework whose class, or a class of the source made from it, the expression names."""
        if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
            expression = _quoted(expression.value)
        target = self._target(expression, module)
        if target is None or target.module is None:
            return made_with(target.name) if target else None
        bindings = target.module.bindings.get(target.name, [])
        return next(filter(None, (self._maker_class(binding, target.module) for binding in bindings)), None)

    def _maker_class(self, binding: Binding, module: Module) -> Framework | None:
        if isinstance(binding, ast.ClassDef):
            bases = (self._maker(base, module) for base in binding.bases if _dotted(base) != [binding.name])
            return next(filter(None, bases), None)
        return made_with(f"{binding.module}.{binding.name}") if isinstance(binding, Imported) else None

    def _target(self, expression: ast.expr, module: Module) -> _Target | None:
        """What a name or a dotted name means in the module."""
        parts = _dotted(expression)
        if not parts:
            return None
        bindings = module.bindings.get(parts[0]) or self._inside(module).get(parts[0], [])
        imports = [one for one in bindings if isinstance(one, Imported)]
        if not imports:
            return _Target(module, parts[0]) if len(parts) == 1 else None
        first = imports[-1]
        *path, name = [*first.module.split("."), *([first.name] if first.name else []), *parts[1:]]
        other = self.modules.get(".".join(path))
        return _Target(other, name) if other else _Target(None, ".".join([*path, name]))


def plain_app(name: str, function: Function) -> Framework | None:
    """What kind of app the function itself is, by its usual name and by what it takes; None when it is none."""
    if name not in OBJECT_NAMES:
        return None
    is_async = isinstance(function, ast.AsyncFunctionDef)
    taken = [one.arg for one in function.args.args]
    if taken == (_ASGI_PARAMETERS if is_async else _WSGI_PARAMETERS):
        return ASGI if is_async else WSGI
    return None


def _used_framework(module: Module) -> Framework | None:
    """The framework that the module imports something of, its extensions included."""
    every = (binding for bindings in module.bindings.values() for binding in bindings)
    packages = {one.module.partition(".")[0] for one in every if isinstance(one, Imported)}
    return next((one for one in FRAMEWORKS if any(name.startswith(one.package) for name in packages)), None)


def takes_no_argument(function: Function) -> bool:
    """Whether the function can be called with nothing in the parentheses, and answers at once."""
    arguments = function.args
    positional = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    is_async = isinstance(function, ast.AsyncFunctionDef)
    return positional == 0 and None not in arguments.kw_defaults and not is_async


def _assigned(function: Function) -> Iterator[tuple[str, ast.expr]]:
    """What the function's own names are assigned; of several the first, which makes what the later ones wrap."""
    seen: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name) and target.id not in seen:
                    seen.add(target.id)
                    yield target.id, node.value


def _parameters(function: Function) -> dict[str, ast.expr]:
    """The function's parameters: whatever they are, they are not the module's things of the same name."""
    arguments = function.args
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    return {one.arg: ast.Constant(None) for one in every}


def _quoted(annotation: str) -> ast.expr:
    """What an annotation in quotes says."""
    try:
        return ast.parse(annotation, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Constant(None)


def _dotted(expression: ast.expr) -> list[str]:
    """`a.b.c` as its parts; nothing for any other expression."""
    parts: list[str] = []
    while isinstance(expression, ast.Attribute):
        parts.insert(0, expression.attr)
        expression = expression.value
    return [expression.id, *parts] if isinstance(expression, ast.Name) else []
