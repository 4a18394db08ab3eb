"""`bulletproof ci`: let a forge test, plan and deploy."""

from __future__ import annotations

from pathlib import Path

import click

from bulletproof import __version__
from bulletproof.domain.address import find_address
from bulletproof.domain.config import AppConfig
from bulletproof.domain.workflows import HOSTS_SECRET, KEY_SECRET, Wishes
from bulletproof.effects.project import find_project
from bulletproof.effects.source import repository_of
from bulletproof.errors import UsageError
from bulletproof.operations.workflows import test_script, write_workflows

_HELP = """\
Write workflows for GitHub Actions: tests and a plan on pull requests, a deployment on each push, and by hand a rollback
and a check. They need no action of anybody's, and no password: a key that can do little, and the key of the host.

\b
  bulletproof ci github
  bulletproof ci github --host prod --branch main

It then says which keys and secrets are wanted. A file that a person has changed is left as it is.
"""


@click.group("ci")
def ci_command() -> None:
    """Let GitHub Actions test, plan and deploy."""


@ci_command.command("github", help=_HELP)
@click.option("--host", metavar="NAME", help="Where to deploy to: a name from [hosts].  [default: the only one]")
@click.option("--branch", default="main", show_default=True, help="Each push to it is deployed.")
@click.option("--package", help=f"What pip installs there.  [default: bulletproof=={__version__}]")
@click.option("--test", "tests", multiple=True, metavar="COMMAND", help="Runs the tests, instead of what is found.")
@click.option("--force", "is_forced", is_flag=True, help="Write files anew that a person has changed.")
def github_command(
    *, host: str | None, branch: str, package: str | None, tests: tuple[str, ...], is_forced: bool
) -> None:
    """Write them, and say what is left to do."""
    project = find_project(Path.cwd())
    chosen = _host(project.config, host)
    repository = repository_of(project.folder)
    inside = project.folder.resolve().relative_to(repository).as_posix()
    wishes = Wishes(
        app=project.config.name,
        host=chosen,
        branch=branch,
        package=package or f"bulletproof=={__version__}",
        version=__version__,
        folder="" if inside == "." else inside,
        tests=tests or test_script(project.folder),
    )
    for written in write_workflows(repository, wishes, is_forced=is_forced):
        click.echo(f"{written.how.ljust(12)}  {written.path.relative_to(repository)}", err=True)
    if not wishes.tests:
        click.echo("no tests were found; --test 'COMMAND' names them", err=True)
    _tell_what_is_left(wishes, project.config)


def _host(config: AppConfig, wish: str | None) -> str:
    names = sorted(config.hosts)
    if wish is None and len(names) == 1:
        return names[0]
    if wish is None or wish not in names:
        what = f"{wish} is not among [hosts]" if wish else f"[hosts] has {len(names)} names"
        example = 'write [hosts] and prod = "deploy@example.org" into bulletproof.toml'
        raise UsageError("host-unknown", f"{what} of bulletproof.toml", hint=f"--host {names[0]}" if names else example)
    return wish


def _tell_what_is_left(wishes: Wishes, config: AppConfig) -> None:
    address = find_address(wishes.host, config.hosts)
    place = f"[{address.host}]:{address.port}" if address.port else address.host
    to, where, looking = f"--to {wishes.host}", wishes.environment, wishes.looking
    secret = f"gh secret set {KEY_SECRET} --env"
    click.echo("\nonce, from here (gh is GitHub's command line; a browser does as well):", err=True)
    for line in (
        f"gh api -X PUT repos/{{owner}}/{{repo}}/environments/{where}",
        f"gh api -X PUT repos/{{owner}}/{{repo}}/environments/{looking}",
        f"bulletproof keys add github --can deploy,rollback,status --new {to} | {secret} {where}",
        f"bulletproof keys add github-plan --can plan,status --new {to} | {secret} {looking}",
        f"ssh-keygen -F '{place}' | gh secret set {HOSTS_SECRET}",
    ):
        click.echo(f"  {line}", err=True)
    click.echo("then commit .github and push it", err=True)
