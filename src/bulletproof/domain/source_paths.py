"""Where an expression leads to: paths below the source, told by reading what puts them together."""

from __future__ import annotations

import ast
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import msgspec

from bulletproof.domain.python_module import Module

_ROOT = "\0"
"""Stands for the source's folder, wherever it lies; no path of a file system has this letter."""
_HOPS = 4
_SAME = {"abspath", "realpath", "normpath", "str", "Path", "PurePath", "resolve", "absolute", "fspath", "as_posix"}
"""What gives the path that it is given, as far as it matters here."""
_JOINING = {"join", "joinpath", "safe_join"}
_READING = {"get", "getenv", "setdefault", "str", "config", "path"}
"""What reads a setting and has a second argument for when there is none."""


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """What the source's names were assigned, by the name alone, each with the file it stands in."""

    assigned: Mapping[str, Sequence[tuple[ast.expr, Module]]]
    import_folder: str = ""

    @classmethod
    def of(cls, modules: Iterable[Module], import_folder: str = "") -> Names:
        """All assignments of the source."""
        assigned: dict[str, list[tuple[ast.expr, Module]]] = {}
        for module in modules:
            for name, value in assignments(module):
                assigned.setdefault(name, []).append((value, module))
        return cls(assigned=assigned, import_folder=import_folder)


def place_below(expression: ast.expr, module: Module, names: Names, *, relative_to: str = "") -> str:
    """The path below the source that an expression leads to; empty when it leads elsewhere or cannot be told.

    A relative one counts from `relative_to`, the source itself when empty; a URL of SQLite's is the path in it.
    """
    text = _Reader(module, names, _HOPS).text(expression)
    if text is None:
        return ""
    scheme, separator, rest = text.partition(":///")
    if separator:
        text = rest.partition("?")[0] if scheme.startswith("sqlite") else ""
    if not text or text == ":memory:" or "://" in text:
        return ""
    place = text if text.startswith(_ROOT) else posixpath.join(_ROOT, relative_to, text)
    place = posixpath.normpath(place)
    return place.removeprefix(f"{_ROOT}/") if place.startswith(f"{_ROOT}/") else ""


class _Reader(msgspec.Struct, frozen=True):
    """What nodes of one file stand for: a text or path, the source's folder as `_ROOT`; None when it cannot be told."""

    module: Module
    names: Names
    hops: int

    def text(self, node: ast.AST) -> str | None:
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.Name(id="__file__"):
                return self._here
            case ast.BinOp() | ast.JoinedStr() | ast.BoolOp() | ast.FormattedValue():
                return self._put_together(node)
            case ast.Call():
                return self._call(node)
            case ast.Attribute() | ast.Subscript():
                return self._attribute(node) or self._named(node)
        return self._named(node)

    @property
    def _here(self) -> str:
        return f"{_ROOT}/{self.module.path}"

    def _put_together(self, node: ast.BinOp | ast.JoinedStr | ast.BoolOp | ast.FormattedValue) -> str | None:
        match node:
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return _joined((self.text(left), self.text(right)))
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return _concatenated((self.text(left), self.text(right)))
            case ast.JoinedStr(values=values):
                return _concatenated(map(self.text, values))
            case ast.BoolOp(values=[*_, value]) | ast.FormattedValue(value=value):
                return self.text(value)
        return None

    def _attribute(self, node: ast.Attribute | ast.Subscript) -> str | None:
        match node:
            case ast.Attribute(value=value, attr="parent"):
                return _above(self.text(value), 1)
            case ast.Subscript(value=ast.Attribute(value=value, attr="parents"), slice=ast.Constant(value=int(count))):
                return _above(self.text(value), count + 1)
            case ast.Attribute(attr="instance_path"):
                return posixpath.join(_ROOT, self.names.import_folder, "instance")
            case ast.Attribute(attr="root_path"):
                return _above(self._here, 1)
            case ast.Attribute(attr="static_folder"):
                return _joined((_above(self._here, 1), "static"))
        return None

    def _call(self, call: ast.Call) -> str | None:
        name = _last_name(call.func)
        arguments = [self.text(one) for one in call.args]
        base = self.text(call.func.value) if isinstance(call.func, ast.Attribute) else None
        default = next((keyword.value for keyword in call.keywords if keyword.arg == "default"), None)
        found: str | None = None
        if name in {"getcwd", "cwd"}:
            found = _ROOT
        elif name == "dirname" and arguments:
            found = _above(arguments[0], 1)
        elif name in _JOINING:
            found = _joined((base, *arguments) if name == "joinpath" else arguments)
        elif name in _READING and (default or len(arguments) > 1):
            found = self.text(default) if default else arguments[-1]
        elif name in _SAME:
            found = arguments[0] if arguments else base
        return found

    def _named(self, node: ast.AST) -> str | None:
        """What a name, an attribute or a key of a configuration was assigned, the first of it that can be told."""
        values = self.names.assigned.get(_last_name(node), ()) if self.hops else ()
        found = (_Reader(module, self.names, self.hops - 1).text(value) for value, module in values)
        return next((text for text in found if text is not None), None)


def _joined(parts: Iterable[str | None]) -> str | None:
    texts = list(parts)
    whole = [text for text in texts if text is not None]
    return posixpath.join(*whole) if whole and len(whole) == len(texts) else None


def _concatenated(parts: Iterable[str | None]) -> str | None:
    texts = list(parts)
    whole = [text for text in texts if text is not None]
    return "".join(whole) if len(whole) == len(texts) else None


def _above(path: str | None, count: int) -> str | None:
    for _ in range(count if path else 0):
        path = str(PurePosixPath(path or "").parent)
    return path


def _last_name(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(slice=ast.Constant(value=str(name))):
            return name
    return ""


def assignments(module: Module) -> Iterator[tuple[str, ast.expr]]:
    """All that is assigned to a name, a key, a keyword or in a mapping: `UPLOAD_FOLDER = …` in each of its ways."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                yield from ((name, value) for name in map(_last_name, targets) if name)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                yield _last_name(target), value
            case ast.keyword(arg=str(name), value=value):
                yield name, value
            case ast.Dict(keys=keys, values=values):
                yield from ((_key(key), one) for key, one in zip(keys, values, strict=True) if _key(key))


def _key(key: ast.expr | None) -> str:
    return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else ""
