"""`bulletproof plan`: what a deployment would do."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from bulletproof.cli.actions import harmless, is_read_in_actions, summarise
from bulletproof.cli.deployments import Wish, older_option, ordered, origin_options, source_options
from bulletproof.cli.parcels import packed_source
from bulletproof.cli.plan_text import as_json as plan_as_json
from bulletproof.cli.plan_text import in_markdown, in_words
from bulletproof.cli.target import Target, json_option, loss_option, sent_with
from bulletproof.cli.words import show_error
from bulletproof.domain.layout import PlannedLayout, runtime_folder
from bulletproof.effects import durable
from bulletproof.effects.interrupts import Interrupted, Interrupts
from bulletproof.effects.scratch import scratch_folder
from bulletproof.effects.sqlite_copy import copy_database
from bulletproof.engine.journal import Journal
from bulletproof.errors import StepFailed, UsageError
from bulletproof.operations.activate import serving
from bulletproof.operations.attempt import Order
from bulletproof.operations.plan import Plan, make_plan, next_deployment, require_quiet
from bulletproof.wiring import connect, connect_planned

_HELP = """\
Prepare REVISION (a commit, tag or branch; HEAD when missing) and rehearse it on a copy of the live data, as `deploy`
would; then tell what it would do. It changes nothing of the app, its data and its host.

\b
  bulletproof plan              the last commit
  bulletproof plan v1.4         a tag
  bulletproof plan --worktree   what lies here, committed or not

Exit status: 0 when it would be deployed, 1 when it would be refused, 5 while another deployment runs.
"""


@click.command("plan", help=_HELP)
@source_options
@origin_options
@older_option
@loss_option
@sent_with(packed_source)
@json_option
@click.pass_obj
def plan_command(
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
    as_json: bool,
) -> None:
    """Plan what is asked for from this folder."""
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
    try:
        with (
            Interrupts(),
            ordered(root, verb_root, app_name, wish) as (target, order),
            scratch_folder(f"bulletproof-plan-{target.app}-") as scratch,
        ):
            plan = _plan(target, order, scratch)
    except Interrupted as signal:
        raise StepFailed("interrupted", f"{signal}; the plan changed nothing", hint="bulletproof plan") from signal
    finally:
        _tell("")
    if as_json:
        click.echo(json.dumps(plan_as_json(target.app, plan)))
    else:
        is_log = is_read_in_actions()
        click.echo(harmless(in_words(plan)) if is_log else in_words(plan), err=is_log)
        summarise(in_markdown(target.app, plan))
        if plan.error is not None:
            serves = f"{plan.serving} serves; " if plan.serving else ""
            show_error(plan.error, after=f"{serves}a plan changes nothing")
    sys.exit(plan.error.exit_code if plan.error else 0)


def _plan(target: Target, order: Order, scratch: Path) -> Plan:
    """Make the plan in a folder that is gone afterwards."""
    source, config = order.source, order.config
    assert source is not None  # noqa: S101  an order to deploy has both
    assert config is not None  # noqa: S101
    host = connect(target.root, target.app, config)
    require_quiet(host)
    journal = _journal(target, scratch)
    deployment = next_deployment(journal, source)
    layout = PlannedLayout(
        root=scratch,
        app=target.app,
        runtime=runtime_folder(scratch, os.getuid()),
        live=target.layout,
        release_made=deployment.release,
        number=deployment.number,
        has_data=deployment.previous is not None or host.database.exists(),
    )
    serves = serving(host, journal) if journal else None
    try:
        plan = make_plan(connect_planned(layout, config), deployment, order, serves, _tell)
    finally:
        durable.remove_tree(layout.runtime)
    require_quiet(host)
    if next_deployment(_journal(target, scratch), source).number != deployment.number:
        words = "another deployment was made meanwhile, and what was found is not about what is live now"
        raise UsageError("plan-outdated", words, hint="bulletproof plan")
    return plan


def _journal(target: Target, scratch: Path) -> Journal | None:
    """A copy of the journal: SQLite would lay files beside one that nobody has open."""
    if not target.layout.journal.exists():
        return None
    copy = scratch / "journal.db"
    copy_database(target.layout.journal, copy)
    return Journal.read(copy)


def _tell(step: str) -> None:
    """On a terminal, the step that runs; the report is what stays."""
    if sys.stderr.isatty():
        click.secho(f"\r\x1b[2K{f'  {step}  …' if step else ''}", dim=True, err=True, nl=False)
