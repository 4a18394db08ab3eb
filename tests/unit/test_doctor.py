"""What the doctor says of logs, settings and differences, and what comes of several remedies together."""

from __future__ import annotations

import time

import pytest

from bulletproof.domain.check import State
from bulletproof.domain.diagnoses import DIAGNOSES
from bulletproof.domain.difference import first_difference
from bulletproof.domain.doctor import Diagnosis, Ill, Remedy, exit_code, treatment
from bulletproof.domain.process import START_TIME, is_start_line, since_start, start_line
from bulletproof.domain.reason import reason_in
from bulletproof.domain.repair import Permission
from bulletproof.domain.security import debug_settings, weak_secret
from bulletproof.operations.doctor import _LOOKS, _ONLINE

MENDED = Remedy(words="mend it", restarts=True)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], ""),
        (["", "  "], ""),
        (["Booting worker", "bye"], "bye"),
        (
            [
                "Traceback (most recent call last):",
                "  File x",
                "ModuleNotFoundError: No module named 'flask'",
                "[1] bye",
            ],
            "the module flask is missing: no package of its list brings it, or a file of it is gone",
        ),
        (["ValueError: first", "django.core.exceptions.ImproperlyConfigured: no key"], "ImproperlyConfigured: no key"),
        (["KeyError: 'SECRET_KEY'"], "the setting SECRET_KEY is not set"),
        (["KeyError: 'name'"], "KeyError: 'name'"),
        (
            ["sqlite3.OperationalError: attempt to write a readonly database"],
            "it may not write its database",
        ),
        (["OSError: [Errno 98] Address already in use"], "another program listens where it wants to"),
        (["OSError: [Errno 5] Input/output error"], "OSError: Input/output error"),
        (
            ["[ERROR] Worker (pid:7) was sent SIGKILL! Perhaps out of memory?"],
            "a worker was killed: mostly the machine had no memory left",
        ),
    ],
)
def test_the_reason_in_a_log(lines: list[str], reason: str) -> None:
    """In one sentence."""
    assert reason_in(lines) == reason


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("dev", "SECRET_KEY has only 3 letters"),
        ("0123456789abcde", "SECRET_KEY has only 15 letters"),
        ("change-me-before-production", "SECRET_KEY is a placeholder that everybody knows"),
        ("django-insecure-3k#d8!2hf0s9", "SECRET_KEY is a placeholder that everybody knows"),
        ("aaaaaaaaaaaaaaaabb", "SECRET_KEY is the same few letters again and again"),
        ("0123456789abcdef", ""),
        ("8b1f6c0c6f1e4f5c9a1d", ""),
    ],
)
def test_a_weak_secret(value: str, words: str) -> None:
    """Short, known, or none; the value itself is never told."""
    told = weak_secret("SECRET_KEY", value)
    assert told == words
    assert value not in told


def test_debug_modes() -> None:
    """Whatever means yes."""
    on = {"FLASK_DEBUG": "1", "DEBUG": "True", "DJANGO_DEBUG": " on ", "FLASK_ENV": "development"}
    assert debug_settings(on) == ("FLASK_DEBUG", "DEBUG", "DJANGO_DEBUG", "FLASK_ENV")
    assert debug_settings({"FLASK_DEBUG": "0", "DEBUG": "False", "DJANGO_DEBUG": "", "FLASK_ENV": "production"}) == ()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("a\nb\n", "its last line has no end"),
        ("a\n", "line 2, `b`, is missing"),
        ("a\nb\n c\n", "line 3 is `c`, and was not there"),
        ("a\nx", "line 2 is `x`, and was `b`"),
    ],
)
def test_a_difference(found: str, words: str) -> None:
    """The first line in which they differ."""
    assert first_difference("a\nb", found) == words


def _of(state: State, remedy: Remedy | None = None) -> Diagnosis:
    return Diagnosis(name="x", state=state, ill=Ill(words="", remedy=remedy or Remedy()))


@pytest.mark.parametrize(
    ("left", "was_mended", "code"),
    [
        ([], True, 0),
        ([_of(State.WARNING)], False, 1),
        ([_of(State.WARNING)], True, 1),
        ([_of(State.CRITICAL)], False, 2),
        ([_of(State.CRITICAL)], True, 4),
        ([_of(State.CRITICAL, MENDED)], True, 2),
        ([_of(State.UNKNOWN)], False, 3),
        ([_of(State.UNKNOWN), _of(State.WARNING)], True, 1),
    ],
)
def test_exit_codes(left: list[Diagnosis], *, was_mended: bool, code: int) -> None:
    """As `check` has it, and 4 where only a person can go on."""
    assert exit_code(left, was_mended=was_mended) == code


def test_remedies_together() -> None:
    """Each thing is done once."""
    change = Permission(path="/x", owner=0, group=0, mode=0o600)
    both = treatment(
        [
            Remedy(words="a", changes=(change,), rebuilds=("1-a",), restarts=True),
            Remedy(words="b", changes=(change,), rebuilds=("1-a", "2-b"), unset_names=("DEBUG",)),
        ]
    )
    assert (both.repairs.changes, both.repairs.rebuilds) == ((change,), ("1-a", "2-b"))
    assert (both.restarts, both.changes_settings, both.recovers, both.backs_up) == (True, True, False, False)
    assert treatment([Remedy(words="c", recovers=True)]).repairs.is_empty


def test_each_diagnosis_has_its_page() -> None:
    """And each page its look."""
    assert [*_LOOKS, *_ONLINE] == list(DIAGNOSES)


def test_the_reason_is_of_the_last_start() -> None:
    """What was mended before it is not told again; a log that tells of no start was cut off after it."""
    old = ["2026-11-28 07:40:12 +0000 [bulletproof] web-3 is started", "ModuleNotFoundError: No module named 'flask'"]
    new = [old[0], "Booting", "ValueError: no house is built on sand"]
    assert since_start((*old, *new)) == tuple(new[1:])
    assert since_start(new[1:]) == tuple(new[1:])
    assert since_start((*new, new[0])) == ()
    assert is_start_line(start_line("web-3", time.strftime(START_TIME)))
    assert not is_start_line("an app that says [bulletproof] web-3 is started")
    assert start_line("check-1", "") == start_line("backup-1", "") == ""
