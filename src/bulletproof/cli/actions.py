"""GitHub Actions: whether we run in it, and what its log and its summaries make of what is printed.

Workflow commands are lines of their own, so no text of an app's may begin one; and of each kind of annotation GitHub
shows the first ten of a step.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from bulletproof.cli.client import our_client

SUMMARISED = frozenset({"deploy", "plan", "rollback", "restart", "attach", "start", "stop"})
"""Verbs that have something to say in a job's summary."""
MOST_ANNOTATIONS = 9
"""Of a kind: the tenth is for how many more there are."""

_LARGEST_SUMMARY = 900 << 10
"""GitHub takes 1 MiB of each step, and nothing of a step that wrote more."""
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~])")
_AT_BEGIN = re.compile(r"^(\s*)(?=::)", re.MULTILINE)


def is_in_actions() -> bool:
    """Whether this process is part of a workflow's run. A terminal says nothing: some runners give one."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def is_read_in_actions() -> bool:
    """Whether what we say is read in the log of a workflow, here or where our client is."""
    client = our_client()
    return client.is_in_actions if client else is_in_actions()


def is_meant(revision: str | None) -> bool:
    """Whether a person named the revision, and so wants it, older or not; what a job names may be a day old."""
    is_job = is_in_actions() or os.environ.get("CI", "").lower() not in {"", "0", "false"}
    return revision is not None and not is_job


def summary_file() -> Path | None:
    """Where this machine's job has its summary."""
    name = os.environ.get("GITHUB_STEP_SUMMARY", "")
    return Path(name) if is_in_actions() and name else None


@contextmanager
def summary_output(file: Path | None) -> Iterator[IO[bytes] | None]:
    """What takes the standard output of a verb on a host, whose summary it is; None for our own standard output."""
    if file is None:
        yield None
        return
    with file.open("ab") as summary:
        yield summary


def summarise(markdown: str) -> None:
    """Add to the summary of the job: by our standard output when that leads there on the client's machine."""
    text = markdown.rstrip().encode()[:_LARGEST_SUMMARY].decode(errors="ignore") + "\n\n"
    client = our_client()
    if client is not None:
        if client.has_summary:
            click.echo(text, nl=False)
    elif (file := summary_file()) is not None:
        with file.open("ab") as summary:
            summary.write(text.encode())


def say(text: str) -> None:
    """Print on stderr, so that nothing in the text is taken for a command where workflows are run."""
    click.echo(harmless(text) if is_read_in_actions() else text, err=True)


def harmless(text: str) -> str:
    """The text without what a runner would take for a command of a workflow, at the beginning of a line or in it."""
    return _AT_BEGIN.sub(r"\1| ", text).replace("##[", "# #[")


def command(name: str, text: str = "", **properties: str) -> str:
    """A command of a workflow, escaped as the runner wants it."""
    told = ",".join(
        f"{key}={_escaped(value).replace(':', '%3A').replace(',', '%2C')}" for key, value in properties.items()
    )
    return f"::{name}{f' {told}' if told else ''}::{_escaped(text)}"


def plain(text: str) -> str:
    """A text in Markdown that shows as it is."""
    return _SPECIAL.sub(r"\\\1", text)


def code(text: str) -> str:
    """A text as a line of code in Markdown."""
    inside = text.replace("`", "'")
    return f"`{inside}`" if inside else ""


def block(lines: tuple[str, ...]) -> str:
    """Lines as they were printed, in Markdown."""
    text = "\n".join(lines)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def folded(title: str, inside: str) -> str:
    """A part that is opened by a touch."""
    return f"<details><summary>{plain(title)}</summary>\n\n{inside}\n\n</details>"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
