"""Values of a bulletproof.toml and what its keys can be, as a person reads them in an error."""

from __future__ import annotations

import json
import re

from msgspec import inspect

_SHOWN_TEXT = 40
_LARGE = 1 << 63
"""Python refuses to write down a whole number of thousands of digits, which TOML can give in hexadecimal."""


def wanted(kind: inspect.Type) -> str:
    """What a key can be, so that the sentence reads "must be ..."."""
    words = "text"
    match kind:
        case inspect.Metadata(extra_json_schema={"description": description}):
            words = str(description)
        case inspect.UnionType(types=(first, *_)):
            words = wanted(first)
        case inspect.EnumType(cls=cls):
            words = " or ".join(f'"{member.value}"' for member in cls)
        case inspect.IntType(ge=least, le=most):
            words = f"a whole number from {least} to {most}"
        case inspect.FloatType(gt=None, ge=least, le=most):
            words = f"a number from {least} to {most}"
        case inspect.FloatType(gt=above, le=most):
            words = f"a number above {above} and up to {most}"
        case inspect.DictType():
            words = "a table of texts"
        case inspect.VarTupleType(item_type=item):
            words = f"a list, each item {wanted(item)}"
    return words


def told(value: object) -> str:
    """A value in words, short and without control characters."""
    if isinstance(value, str):
        return f"the text {json.dumps(value if len(value) <= _SHOWN_TEXT else f'{value[:_SHOWN_TEXT]}...')}"
    if isinstance(value, (int, float)):
        return "a number that large" if isinstance(value, int) and abs(value) >= _LARGE else str(value).lower()
    return "a list" if isinstance(value, list) else "a table" if isinstance(value, dict) else "a date or time"


def advice(value: object, kind: inspect.Type) -> str:
    """What to type when only quotes or brackets are wrong."""
    if not isinstance(value, str) or len(value) > _SHOWN_TEXT:
        return ""
    if isinstance(kind, inspect.VarTupleType):
        return f"; write [{json.dumps(value)}]"
    is_number = isinstance(kind, (inspect.IntType, inspect.FloatType)) and re.fullmatch(r"[0-9.]+", value)
    return "; a number stands without quotes" if is_number else ""
