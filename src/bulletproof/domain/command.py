"""A command line of a configuration: how a shell runs it, and which program that needs."""

from __future__ import annotations

import shlex

_BUILT_IN = frozenset(
    {
        *(
            ".",
            ":",
            "[",
            "case",
            "cd",
            "echo",
            "eval",
            "exec",
            "exit",
            "export",
            "false",
            "for",
            "if",
            "printf",
            "read",
        ),
        *("set", "test", "trap", "true", "ulimit", "umask", "until", "while"),
    }
)
"""What a shell does itself."""


_OPERATORS = frozenset("();<>|&")
_JOINING = frozenset("();|")


def fault(command: str) -> str:
    """What is wrong with a command, in words; empty when it can be read."""
    try:
        shlex.split(command)
    except ValueError:
        return "a quote in it is not closed, or a backslash ends it"
    return ""


def is_simple(command: str) -> bool:
    """Whether it is one program with its arguments, which can take the shell's place."""
    words = _words(command)
    first = words[1:2] if words[:1] == ["exec"] else words[:1]
    return bool(first) and not any(_joins(word) for word in words) and first[0] not in _BUILT_IN


def shell_argv(command: str) -> tuple[str, ...]:
    """What runs it. A simple command takes the shell's place, so that SIGTERM reaches the program itself.

    Otherwise the shell lets what it runs finish when SIGTERM comes, and ends then; SIGTERM must go to all of its group.
    """
    if not is_simple(command):
        return ("/bin/sh", "-c", f"trap exit TERM INT QUIT; {command}")
    (first, *_) = _words(command)
    prefix = "" if first == "exec" else "exec env " if _is_assignment(first) else "exec "
    return ("/bin/sh", "-c", prefix + command.strip())


def graceful_signal(command: str) -> str:
    """The signal, without its SIG, at which it finishes what it does; huey's consumer drops that at SIGTERM."""
    words = _words(command)
    is_huey = any(word.rpartition("/")[2] in {"huey_consumer", "huey_consumer.py", "run_huey"} for word in words)
    is_told = any(word == "-g" or word.startswith("--graceful-signal") for word in words)
    return "INT" if is_huey and not is_told else "TERM"


def program_of(command: str) -> str:
    """The program that it begins with; empty when only a shell could tell."""
    (program, *_) = _program_and_arguments(command) or [""]
    return "" if program in _BUILT_IN or set(program) <= _OPERATORS or "$" in program or "`" in program else program


def script_of(command: str) -> str:
    """The file that it gives to Python, as in `python worker.py`; empty when it gives none."""
    words = _program_and_arguments(command)
    script = words[1] if len(words) > 1 and words[0].rpartition("/")[2].startswith("python") else ""
    return script if script.endswith(".py") and "$" not in script else ""


def _program_and_arguments(command: str) -> list[str]:
    words = _words(command)
    while words and (words[0] in {"exec", "env"} or _is_assignment(words[0])):
        words = words[1:]
    return words


def _words(command: str) -> list[str]:
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    return list(lexer)


def _joins(word: str) -> bool:
    """Whether it is an operator that joins commands, and no redirection."""
    return bool(word) and set(word) <= _OPERATORS and (word.startswith("&") or not _JOINING.isdisjoint(word))


def _is_assignment(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals) and name.isidentifier()
