"""Writes docs/reference from the code: command line, configuration, errors and findings; a test holds them together.

Run `python tools/reference.py` after a change; `--check` writes nothing and fails when a page is not current.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
import textwrap
import typing
from pathlib import Path

import click
import msgspec

from bulletproof import errors
from bulletproof.cli.main import VERBS, bulletproof
from bulletproof.domain import diagnoses
from bulletproof.domain.config import AppConfig
from bulletproof.domain.findings import FINDINGS, index, page_of

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "reference"
_CLASSES = ("UsageError", "Refused", "StepFailed", "Undone", "NeedsPerson", "LockHeld", "RecoveryNeeded", "Unwatched")


def pages() -> dict[str, str]:
    """Every page of the reference by its file name."""
    findings = {f"findings/{name}.md": page_of(name) for name in FINDINGS}
    findings["findings/index.md"] = index()
    told = {f"diagnoses/{name}.md": diagnoses.page_of(name) for name in diagnoses.DIAGNOSES}
    told["diagnoses/index.md"] = diagnoses.index()
    pages = {"cli.md": command_line(), "configuration.md": configuration(), "errors.md": error_page()}
    return {**pages, **findings, **told}


def command_line() -> str:
    """The help of every verb."""
    # With its own settings: click keeps the help option that was made first, by whoever asked.
    context = click.Context(bulletproof, info_name="bulletproof", **bulletproof.context_settings)
    parts = ["# Command line\n", _block(bulletproof.get_help(context))]
    for name in (name for name, verb in VERBS.items() if not verb.is_hidden):
        command = bulletproof.get_command(context, name)
        assert command is not None, name
        parts += [f"\n## bulletproof {name}\n", _help(command, name, context)]
        if isinstance(command, click.Group):
            inner = click.Context(command, info_name=name, parent=context, max_content_width=100)
            for word, verb in command.commands.items():
                parts += [f"\n### bulletproof {name} {word}\n", _help(verb, word, inner)]
    return "\n".join(parts)


def configuration() -> str:
    """Every key of bulletproof.toml with its type, default and meaning."""
    lines = [
        "# Configuration",
        "",
        "`bulletproof.toml` in the project's folder, or `[tool.bulletproof]` in pyproject.toml; only `name` is needed.",
        "",
    ]
    for title, table in {"Top level": AppConfig, **_tables()}.items():
        lines += [f"## {title}", "", inspect.getdoc(table) or "", ""]
        rows = [row for row in _rows(table) if row]
        if rows:
            lines += ["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def error_page() -> str:
    """Exit codes, and every reference that an error can have."""
    lines = ["# Exit codes and errors", "", "| code | means |", "|---|---|", "| 0 | done |"]
    codes: dict[int, list[str]] = {}
    for name in ("Refused", "UsageError", "Undone", "NeedsPerson", "LockHeld", "RecoveryNeeded", "Unwatched"):
        kind = getattr(errors, name)
        codes.setdefault(kind.exit_code, []).append((inspect.getdoc(kind) or "").splitlines()[0].rstrip("."))
    lines += [f"| {code} | {'; '.join(words)} |" for code, words in sorted(codes.items())]
    lines += ["", "## References", "", "The word after `error:`. It is stable; look it up here, or search for it.", ""]
    lines += ["| reference | told in |", "|---|---|"]
    lines += [f"| `{name}` | {', '.join(sorted(places))} |" for name, places in sorted(_references().items())]
    return "\n".join(lines) + "\n"


def _help(command: click.Command, name: str, parent: click.Context) -> str:
    return _block(command.get_help(click.Context(command, info_name=name, parent=parent, max_content_width=100)))


def _block(text: str) -> str:
    return f"```\n{text.rstrip()}\n```\n"


def _tables() -> dict[str, type]:
    """Each table by its heading; one of tables that a person names stands for all of them."""
    return dict(_tables_in(AppConfig, ""))


def _tables_in(shape: type, above: str) -> typing.Iterator[tuple[str, type]]:
    for field in msgspec.structs.fields(shape):
        way, inner = f"{above}{field.name}", typing.get_args(field.type)[1:2]
        if _is_struct(field.type):
            yield f"[{way}]", field.type
            yield from _tables_in(field.type, f"{way}.")
        elif _is_named(field.type):
            yield f"[{way}.NAME]", inner[0]
        elif _is_listed(field.type):
            yield f"[[{way}.NAME]]", typing.get_args(inner[0])[0]


def _is_named(kind: object) -> bool:
    """Whether it is a table of tables that a person names."""
    return typing.get_origin(kind) is dict and _is_struct(typing.get_args(kind)[1])


def _is_listed(kind: object) -> bool:
    """Whether it is a table of lists of tables that a person names."""
    return typing.get_origin(kind) is dict and typing.get_origin(typing.get_args(kind)[1]) is tuple


def _is_struct(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _rows(table: type) -> list[str]:
    meanings = _meanings(table)
    definitions = msgspec.json.schema(table)["$defs"]
    schema = definitions[table.__name__]["properties"]
    rows = []
    for field in msgspec.structs.fields(table):
        if _is_named(field.type) or _is_listed(field.type) or _is_struct(field.type):
            continue
        made = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        default = "needed" if field.required else f"`{msgspec.json.encode(made).decode()}`"
        kind = _kind(schema[field.name], definitions)
        rows.append(f"| `{field.name}` | {kind} | {default} | {meanings.get(field.name, '')} |")
    return rows


def _kind(schema: dict[str, object], definitions: dict[str, dict[str, object]]) -> str:
    """What a key can be, in words."""
    choices = schema.get("anyOf")
    if isinstance(choices, list):
        return " or ".join(_kind(choice, definitions) for choice in choices if choice.get("type") != "null")
    if "$ref" in schema:
        members = definitions[str(schema["$ref"]).rpartition("/")[2]]["enum"]
        return " or ".join(sorted(map(str, members))) if isinstance(members, list) else ""
    words = {
        "object": "table of texts",
        "integer": "whole number",
        "number": "number",
        "string": "text",
    }
    if schema.get("type") == "array":
        items = schema.get("items")
        return f"list of {'whole numbers' if isinstance(items, dict) and items.get('type') == 'integer' else 'texts'}"
    kind = {**words, "boolean": "true or false"}[str(schema.get("type"))]
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    return kind + (f", {low} to {high}" if high is not None else f", from {low}" if low is not None else "")


def _meanings(table: type) -> dict[str, str]:
    """The texts that stand below a class's attributes."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(table)))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
    found = {}
    for before, after in itertools.pairwise(body):
        if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            assert isinstance(before.target, ast.Name)
            found[before.target.id] = " ".join(str(after.value.value).split())
    return found


def _references() -> dict[str, set[str]]:
    """Each error's reference with the modules that raise it."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "src" / "bulletproof").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(reference)), *_]) if (
                    name in _CLASSES
                ):
                    module = path.relative_to(ROOT / "src" / "bulletproof").with_suffix("").as_posix()
                    found.setdefault(reference, set()).add(module.replace("/", "."))
    return found


def main() -> int:
    """Write the pages, or with --check tell which are not current."""
    stale = []
    for name, text in pages().items():
        path = PAGES / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    if "--check" in sys.argv and stale:
        sys.stderr.write(f"not current: {', '.join(stale)}; run python tools/reference.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
