"""`bulletproof deploy`: make a revision live."""

from __future__ import annotations

from pathlib import Path

import click

from bulletproof.cli.deployments import Wish, carry_out, older_option, ordered, origin_options, source_options
from bulletproof.cli.parcels import packed_source
from bulletproof.cli.target import detach_option, json_option, loss_option, sent_with, wait_option
from bulletproof.operations.activate import activate

_HELP = """\
Make REVISION (a commit, tag or branch; HEAD when missing) live, without dropping a request.

\b
  bulletproof deploy              the last commit
  bulletproof deploy v1.4         a tag
  bulletproof deploy --worktree   what lies here, committed or not

When anything goes wrong before the commit point, all of it is undone and what served before still serves.
"""


@click.command("deploy", help=_HELP)
@source_options
@origin_options
@older_option
@loss_option
@sent_with(packed_source)
@detach_option
@wait_option
@json_option
@click.pass_obj
def deploy_command(
    root: Path,
    *,
    revision: str | None,
    bundle: str | None,
    worktree: bool,
    may_be_older: bool,
    may_lose_data: bool,
    database: Path | None,
    has_new_database: bool,
    backup: str | None,
    verb_root: Path | None,
    app_name: str | None,
    wait_seconds: float,
    as_json: bool,
) -> None:
    """Deploy what is asked for from this folder."""
    wish = Wish(
        revision=revision,
        bundle=bundle,
        worktree=worktree,
        may_be_older=may_be_older,
        may_lose_data=may_lose_data,
        database=database,
        has_new_database=has_new_database,
        backup=backup or "",
    )
    with ordered(root, verb_root, app_name, wish) as (target, order):
        carry_out(
            target, "deploy", lambda session: activate(session, order), as_json=as_json, wait_seconds=wait_seconds
        )
