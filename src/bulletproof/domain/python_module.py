"""What a Python file binds at its top level, read without running it."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import msgspec

_MODULE_NAME = re.compile(r"[A-Za-z_][\w-]*")
_INNER_IMPORT = re.compile(r"\s+(from|import)\s")
_SOURCE_FOLDER = "src"


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """A name that an import binds: a thing of a module, or (`name` is empty) the module itself."""

    module: str
    name: str
    line: int


Binding = Imported | ast.expr | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
"""What a name stands for; an expression is what was assigned to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A Python file of the source."""

    path: str
    """Below the source folder, with slashes."""
    name: str
    """As it is imported, such as `app.models`; empty when it cannot be imported."""
    import_folder: str = ""
    """The folder of the source that must be on Python's path for that: `src`, or empty for the source itself."""
    tree: ast.Module = field(repr=False)
    lines: tuple[str, ...] = field(repr=False)
    bindings: dict[str, list[Binding]] = field(repr=False)
    script_bindings: dict[str, list[Binding]] = field(repr=False)
    """What is bound only when the file is run as a script."""

    @property
    def is_package(self) -> bool:
        """Whether it is a package's `__init__.py`."""
        return PurePosixPath(self.path).name == "__init__.py"

    @property
    def stem(self) -> str:
        """The last part of its name."""
        return self.name.rpartition(".")[2]

    @property
    def depth(self) -> int:
        """How many packages it lies in."""
        return self.name.count(".")

    def line(self, number: int) -> str:
        """A line of the file in one piece, fit to be shown and to stand in a comment."""
        words = " ".join("".join(self.lines[number - 1 : number]).split())
        return "".join(sign if sign.isprintable() else "?" for sign in words)


class BrokenModule(msgspec.Struct, frozen=True, kw_only=True):
    """A Python file that cannot be read as Python."""

    path: str
    line: int
    words: str


def read_module(path: str, content: bytes, *, has_source_package: bool = False) -> Module | BrokenModule:
    """Parse a file; a byte order mark, any line ends and declared encodings are understood.

    `has_source_package` tells that the folder `src` is itself a package, so that it is part of the names.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in the app's text is not our affair
            tree = ast.parse(content, filename=path)
    except SyntaxError as error:
        return BrokenModule(path=path, line=error.lineno or 1, words=error.msg)
    except (ValueError, RecursionError, MemoryError) as error:
        return BrokenModule(path=path, line=1, words=str(error) or "it is nested too deeply")
    name = module_name(path, has_source_package=has_source_package)
    package = _package(name, path)
    return Module(
        path=path,
        name=name,
        import_folder=_SOURCE_FOLDER if path.startswith(f"{_SOURCE_FOLDER}/") and not has_source_package else "",
        tree=tree,
        lines=tuple(content.decode(errors="replace").splitlines()),
        bindings=_collected(_top_level(tree.body), package),
        script_bindings=_collected(_script_level(tree.body), package),
    )


def module_name(path: str, *, has_source_package: bool) -> str:
    """How a file below the source folder is imported; empty when it cannot be."""
    parts = list(PurePosixPath(path).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    if len(parts) > 1 and parts[0] == _SOURCE_FOLDER and not has_source_package:
        parts = parts[1:]
    return ".".join(parts) if all(_MODULE_NAME.fullmatch(part) for part in parts) else ""


def inner_imports(module: Module) -> dict[str, list[Binding]]:
    """What imports bind anywhere in the file, also inside functions."""
    if not any(_INNER_IMPORT.match(line) for line in module.lines):
        return {}  # the walk through the whole tree takes as long as parsing it
    imports = (node for node in ast.walk(module.tree) if isinstance(node, ast.Import | ast.ImportFrom))
    return _collected(imports, _package(module.name, module.path))


def _package(name: str, path: str) -> str:
    """The package that relative imports of a module begin at."""
    return name if path.endswith("__init__.py") else name.rpartition(".")[0]


def _top_level(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when the file is imported, also those inside try, with and if."""
    for statement in body:
        if isinstance(statement, ast.If):
            if not _asks_for(statement, "__name__"):
                yield from _top_level([] if _asks_for(statement, "TYPE_CHECKING") else statement.body)
            yield from _top_level(statement.orelse)
        elif isinstance(statement, (ast.Try, ast.With)):
            yield from _top_level(statement.body)
            for handler in getattr(statement, "handlers", ()):
                yield from _top_level(handler.body)
            yield from _top_level([*getattr(statement, "orelse", ()), *getattr(statement, "finalbody", ())])
        else:
            yield statement


def _script_level(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run only when the file is run as a script."""
    for statement in body:
        if isinstance(statement, ast.If) and _asks_for(statement, "__name__"):
            yield from _top_level(statement.body)


def _asks_for(statement: ast.If, name: str) -> bool:
    return any(
        name == (node.id if isinstance(node, ast.Name) else node.attr)
        for node in ast.walk(statement.test)
        if isinstance(node, (ast.Name, ast.Attribute))
    )


def top_level(module: Module) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported."""
    return _top_level(module.tree.body)


def _collected(statements: Iterator[ast.stmt], package: str) -> dict[str, list[Binding]]:
    """Every name that the statements bind, with all that is bound to it, in order."""
    bindings: dict[str, list[Binding]] = {}
    for statement in statements:
        for name, binding in _bound(statement, package):
            bindings.setdefault(name, []).append(binding)
    return bindings


def _bound(statement: ast.stmt, package: str) -> Iterator[tuple[str, Binding]]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name, statement
        case ast.Assign(targets=targets, value=value):
            yield from ((target.id, value) for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value
        case ast.Import(names=names):
            for alias in names:
                top = alias.name.partition(".")[0]
                module = alias.name if alias.asname else top
                yield alias.asname or top, Imported(module=module, name="", line=statement.lineno)
        case ast.ImportFrom(names=names):
            origin = imported_module(statement, package)
            for alias in names:
                yield alias.asname or alias.name, Imported(module=origin, name=alias.name, line=statement.lineno)


def imported_module(statement: ast.ImportFrom, package: str) -> str:
    """The module that a `from ... import` names, when it stands in a module of `package`."""
    if not statement.level:
        return statement.module or ""
    parts = package.split(".")
    above = parts[: len(parts) - statement.level + 1]
    return ".".join([*above, *([statement.module] if statement.module else [])])
