"""Which folders of a source hold static files, and under which URL the app gives them out; read without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import msgspec

from bulletproof.domain.frameworks import FLASK
from bulletproof.domain.python_module import Module

_DECIDING = frozenset({"static_folder", "static_url_path", "static_host", "root_path", "instance_relative_config"})
_MARKS = (b"Flask", b"StaticFiles")


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """What a framework's own collecting made; without a folder nothing was to be collected, or `words` say why not."""

    url: str = ""
    folder: str = ""
    """Absolute, inside the release that is built."""
    words: str = ""


def may_name_static_files(content: bytes) -> bool:
    """Whether a Python file is worth reading for this: all others need not be."""
    return any(mark in content for mark in _MARKS)


def static_folders(modules: Sequence[Module]) -> dict[str, str]:
    """The folders of the source by the path under which they are public: `/static` is `app/static`.

    Only what is written out: a Flask's `static` folder, its own `static_url_path` and `static_folder` included, and
    Starlette's `mount("/static", StaticFiles(directory="static"))`. Whatever else the app gives out, it does so itself;
    also a path that two apps of the source claim.
    """
    found: dict[str, set[str]] = {}
    for module in modules:
        for url, folder in _named_by(module):
            found.setdefault(url, set()).add(folder)
    return {url: folders.pop() for url, folders in found.items() if len(folders) == 1}


def public_path(url: str) -> str:
    """The path that a URL prefix stands for, such as `/static`; empty for one elsewhere, or for the whole site."""
    path = PurePosixPath("/", url)
    is_plain = "://" not in url and not url.startswith("//") and not {"..", "~"} & set(path.parts)
    is_a_pattern = any(sign in url for sign in "<>{}*?#% ")
    return str(path) if is_plain and not is_a_pattern and len(path.parts) > 1 else ""


def _named_by(module: Module) -> Iterator[tuple[str, str]]:
    home = PurePosixPath(module.path).parent
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            url, folder = _of_flask(node, module) or _of_mount(node) or ("", "")
            path, below = public_path(url), _below(home if _is_flask(node, module) else PurePosixPath(), folder)
            if path and below:
                yield path, below


def _of_flask(call: ast.Call, module: Module) -> tuple[str, str] | None:
    if not _is_flask(call, module) or not _is_dunder_name(call.args[:1]):
        return None
    said = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg in _DECIDING or keyword.arg is None}
    if said.keys() - {"static_folder", "static_url_path", "instance_relative_config"} or len(call.args) > 1:
        return None
    folder = _text(said["static_folder"]) if "static_folder" in said else "static"
    url = _text(said["static_url_path"]) if "static_url_path" in said else f"/{PurePosixPath(folder).name}"
    return url, folder


def _of_mount(call: ast.Call) -> tuple[str, str] | None:
    """`app.mount("/static", StaticFiles(directory="static"))`, with whatever name."""
    match call:
        case ast.Call(func=ast.Attribute(attr="mount"), args=[url, ast.Call() as files, *_]) if _is_static_files(files):
            folder = next((word.value for word in files.keywords if word.arg == "directory"), None)
            has_more = any(word.arg == "packages" for word in files.keywords)
            return None if folder is None or has_more else (_text(url), _text(folder))
    return None


def _is_flask(call: ast.Call, module: Module) -> bool:
    match call.func:
        case ast.Name(id=name):
            bound = module.bindings.get(name, [])
            return any(f"{getattr(one, 'module', '')}.{getattr(one, 'name', '')}" in FLASK.makers for one in bound)
        case ast.Attribute(value=ast.Name(id="flask"), attr="Flask"):
            return True
    return False


def _is_static_files(call: ast.Call) -> bool:
    match call.func:
        case ast.Name(id="StaticFiles") | ast.Attribute(attr="StaticFiles"):
            return True
    return False


def _is_dunder_name(arguments: list[ast.expr]) -> bool:
    """Whether the app's own module is named, beside which its folders lie."""
    match arguments:
        case [ast.Name(id="__name__")]:
            return True
    return False


def _below(home: PurePosixPath, folder: str) -> str:
    """The folder of the source; empty for one outside, or for all of it."""
    path = home / folder
    is_inside = bool(folder) and not path.is_absolute() and ".." not in path.parts
    return str(path) if is_inside and path.parts else ""


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
