"""Checks of what people and programs send, before any of it is stored."""

from __future__ import annotations

import re

SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 1000
MOST_NUMBERS = 100
LARGEST_NUMBER = 10**15  # below 2**53, so that whole numbers stay exact when they are drawn


class BadInput(ValueError):
    """What was sent cannot be stored; the message tells the sender why."""


def checked_text(value: object, *, name: str, longest: int) -> str:
    """`value` without blanks around it, if it is text of 1 to `longest` characters."""
    if not isinstance(value, str) or not _is_unicode(value):
        raise BadInput(f"The {name} must be text.")
    stripped = value.strip()
    if not 1 <= len(stripped) <= longest:
        raise BadInput(f"The {name} must have 1 to {longest} characters.")
    return stripped


def checked_password(value: object) -> str:
    """`value` as it is, if it can be a password."""
    if not isinstance(value, str) or not _is_unicode(value):
        raise BadInput("The password must be text.")
    if not SHORTEST_PASSWORD <= len(value) <= LONGEST_PASSWORD:
        raise BadInput(f"The password must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters.")
    return value


def checked_numbers(value: object) -> list[int | float]:
    """`value`, if it is a list of 1 to MOST_NUMBERS numbers that can be drawn."""
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_NUMBERS:
        raise BadInput(f"A chart needs a list of 1 to {MOST_NUMBERS} numbers.")
    if not all(_is_drawable(number) for number in value):
        raise BadInput("Each number must be a plain one between -10^15 and 10^15.")
    return value


def numbers_in(text: str) -> list[int | float]:
    """The numbers that a person typed with commas, semicolons, blanks or line ends between them."""
    return [_number(word) for word in re.split(r"[\s,;]+", text) if word]


def _number(word: str) -> int | float:
    try:
        return int(word) if word.lstrip("+-").isdecimal() else float(word)
    except ValueError:
        raise BadInput(f"“{word[:40]}” is not a number.") from None


def _is_drawable(number: object) -> bool:
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return is_number and -LARGEST_NUMBER <= number <= LARGEST_NUMBER  # not true of NaN


def _is_unicode(text: str) -> bool:
    # JSON can spell half of a surrogate pair, which no database can store.
    return not any("\ud800" <= character <= "\udfff" for character in text)
