"""`bulletproof env`: the app's settings, 0600 and outside every release."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from bulletproof.cli.deployments import carry_out
from bulletproof.cli.parcels import values_by_stdin
from bulletproof.cli.target import Target, find_target, host_options, json_option, sent_with, wait_option
from bulletproof.operations.change_settings import change_settings, read_assignments, read_values
from bulletproof.wiring import connect_settings


@click.group("env")
def env_command() -> None:
    """Set, list and unset the app's settings: environment variables, kept 0600 outside every release.

    A change takes effect at once, by new processes beside the old ones, without a dropped request.
    """


@env_command.command("set")
@click.argument("assignments", nargs=-1, metavar="NAME=VALUE...")
@click.option("--from-stdin", "is_from_stdin", is_flag=True, hidden=True)
@sent_with(values_by_stdin)
@wait_option
@json_option
@click.pass_obj
def set_command(
    root: Path,
    *,
    assignments: tuple[str, ...],
    is_from_stdin: bool,
    verb_root: Path | None,
    app_name: str | None,
    wait_seconds: float,
    as_json: bool,
) -> None:
    """Set settings. NAME=- reads the value from standard input, so that it stands in no process list."""
    values = read_values(sys.stdin) if is_from_stdin else read_assignments(assignments, sys.stdin)
    _change(find_target(root, verb_root, app_name), values, (), wait_seconds=wait_seconds, as_json=as_json)


@env_command.command("unset")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@host_options
@wait_option
@json_option
@click.pass_obj
def unset_command(
    root: Path,
    *,
    names: tuple[str, ...],
    verb_root: Path | None,
    app_name: str | None,
    wait_seconds: float,
    as_json: bool,
) -> None:
    """Unset settings."""
    _change(find_target(root, verb_root, app_name), {}, names, wait_seconds=wait_seconds, as_json=as_json)


@env_command.command("list")
@host_options
@json_option
@click.pass_obj
def list_command(root: Path, *, verb_root: Path | None, app_name: str | None, as_json: bool) -> None:
    """List the names of the settings. Values are never printed."""
    target = find_target(root, verb_root, app_name)
    names = sorted(connect_settings(target.layout).today())
    if as_json:
        click.echo(json.dumps({"app": target.app, "settings": names}))
        return
    for name in names:
        click.echo(name)
    if not names:
        click.echo("no settings; the first deployment takes them from .env", err=True)


def _change(
    target: Target, values: dict[str, str], names: tuple[str, ...], *, wait_seconds: float, as_json: bool
) -> None:
    carry_out(
        target,
        "env",
        lambda session: change_settings(session, values, names),
        as_json=as_json,
        wait_seconds=wait_seconds,
    )
