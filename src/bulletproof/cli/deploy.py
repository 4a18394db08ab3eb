"""`bulletproof deploy`: make a revision live."""

from __future__ import annotations

from pathlib import Path

import click

from bulletproof.cli.deployments import carry_out
from bulletproof.cli.target import find_target, host_options, json_option, loss_option, wait_option
from bulletproof.domain.deployment import Kind
from bulletproof.effects.dotenv import read_dotenv
from bulletproof.effects.project import find_project
from bulletproof.effects.source import has_changes, resolve
from bulletproof.operations.activate import activate
from bulletproof.operations.attempt import Order

_HELP = """\
Make REVISION (a commit, tag or branch; HEAD when missing) live, without dropping a request.

\b
  bulletproof deploy              the last commit
  bulletproof deploy v1.4         a tag
  bulletproof deploy --worktree   what lies here, committed or not

When anything goes wrong before the commit point, all of it is undone and what served before still serves.
"""


@click.command("deploy", help=_HELP)
@click.argument("revision", required=False)
@click.option("--worktree", is_flag=True, help="Take the files as they lie here, uncommitted changes included.")
@loss_option
@host_options
@wait_option
@json_option
@click.pass_obj
def deploy_command(
    root: Path,
    *,
    revision: str | None,
    worktree: bool,
    may_lose_data: bool,
    verb_root: Path | None,
    app_name: str | None,
    wait_seconds: float,
    as_json: bool,
) -> None:
    """Deploy what is asked for from this folder."""
    project = find_project(Path.cwd())
    target = find_target(root, verb_root, None)
    if app_name and app_name != target.app:
        raise click.UsageError(f"this folder's app is {target.app}, not {app_name}")
    source = resolve(project.folder, revision, worktree=worktree)
    if source.is_commit and revision is None and has_changes(project.folder):
        click.secho("note: uncommitted changes are not deployed (--worktree would take them)", dim=True, err=True)
    dotenv = project.folder / ".env"
    order = Order(
        kind=Kind.DEPLOY,
        source=source,
        config=project.config,
        first_settings=read_dotenv(dotenv) if dotenv.exists() else {},
        may_lose_data=may_lose_data,
    )
    carry_out(target, "deploy", lambda session: activate(session, order), as_json=as_json, wait_seconds=wait_seconds)
