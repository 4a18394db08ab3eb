"""`bulletproof keys`: let others in over SSH to do little, and nothing else."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from bulletproof.cli.main import default_root
from bulletproof.cli.parcels import nameless, public_key, read_key_file
from bulletproof.cli.target import find_target, handed, json_option, sent_with
from bulletproof.domain.errand import ENGINE, Right
from bulletproof.domain.keys import (
    Key,
    check_name,
    keys_of,
    others,
    read_public,
    read_rights,
    with_key,
    without_key,
)
from bulletproof.effects.authorized_keys import authorized_keys, change_keys, new_pair, read_keys
from bulletproof.errors import Refused


@click.group("keys")
def keys_command() -> None:
    """Let others in over SSH, such as GitHub Actions: with a key that can do what you list, of one app, and nothing else.

    \b
      bulletproof keys add ci --can deploy,rollback,status --new --to prod
      bulletproof keys add ada --can plan,status --key ada.pub --to prod
      bulletproof keys revoke ci --to prod
    """  # noqa: D301, E501  click's


@keys_command.command("add")
@click.argument("name")
@click.option("--can", "rights", default="deploy,status", show_default=True, metavar="RIGHT,…", help=", ".join(Right))
@click.option("--key", "file", metavar="FILE", help="The file of the public key, or - for standard input.")
@click.option("--new", "is_new", is_flag=True, help="Make a key pair, and print its private half: once, on stdout.")
@sent_with(public_key)
@click.pass_obj
def add_command(
    root: Path,
    *,
    name: str,
    rights: str,
    file: str | None,
    is_new: bool,
    verb_root: Path | None,
    app_name: str | None,
) -> None:
    """Let the owner of a public key do what --can lists with this app.

    \b
    deploy     deploy; attach to, abort and read the logs of what runs
    plan       rehearse on a copy of the live data, changing nothing
    rollback   rollback; attach, abort
    status     status, releases, check

    The code of a deployment runs as this account: whoever may deploy decides what it does.
    """  # noqa: D301  click's
    if bool(file) is is_new:
        raise click.UsageError("either --key FILE or --new")
    target = find_target(root, verb_root, app_name)
    private, public = new_pair(f"bulletproof-{check_name(name)}") if is_new else ("", read_key_file(file or "-"))
    key = Key(
        name=check_name(name),
        rights=read_rights(rights),
        app=target.app,
        root="" if target.root == Path(default_root()).absolute() else str(target.root),
        public=read_public(public),
    )
    if is_new and name in {known.name for known in keys_of(read_keys())}:
        raise Refused("key-exists", f"there is a key named {name}", hint=f"bulletproof keys revoke {name}")
    is_changed = change_keys(lambda text: with_key(text, key, _engine()))
    may = ", ".join(sorted(key.rights))
    what = f"{name} may {may} {key.app}, and nothing else" if is_changed else f"nothing to change: {name} may {may}"
    click.echo(f"{what} ({authorized_keys()})", err=True)
    if private:
        click.echo("its private key, which is kept nowhere, is what follows on standard output", err=True)
        click.echo(private, nl=False)


@keys_command.command("list")
@json_option
@handed(nameless)
def list_command(*, as_json: bool) -> None:
    """The keys that `keys add` let in, and what each may do."""
    text = read_keys()
    known = keys_of(text)
    if as_json:
        click.echo(json.dumps([_as_json(key) for key in known]))
        return
    width = max([len(key.name) for key in known], default=0)
    for key in known:
        click.echo(f"{key.name.ljust(width)}  {', '.join(sorted(key.rights))}  {key.app}  {key.public.fingerprint}")
    if count := others(text):
        entries = "1 other entry" if count == 1 else f"{count} other entries"
        click.echo(f"{entries} in {authorized_keys()}, which Bulletproof leaves alone", err=True)


@keys_command.command("revoke")
@click.argument("name")
@handed(nameless)
def revoke_command(*, name: str) -> None:
    """Let that key in no more. A deployment that it began goes on."""
    change_keys(lambda text: without_key(text, name))
    click.echo(f"{name} is not let in any more", err=True)


def _engine() -> tuple[str, ...]:
    """The command line of the engine here: what `setup` keeps current, or else this very installation."""
    current = Path.home() / ENGINE
    beside = Path(sys.executable).with_name("bulletproof")
    for program in (current, beside):
        if os.access(program, os.X_OK):
            return (str(program),)
    return (sys.executable, "-P", "-m", "bulletproof")


def _as_json(key: Key) -> dict[str, object]:
    return {
        "name": key.name,
        "can": sorted(key.rights),
        "app": key.app,
        "fingerprint": key.public.fingerprint,
    }
