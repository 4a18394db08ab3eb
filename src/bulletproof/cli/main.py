"""The command `bulletproof`: finds the verb's file, shows errors, sets the exit code; imports nothing heavy."""

from __future__ import annotations

import importlib
import os
import sys
from typing import NamedTuple

import click

from bulletproof import __version__
from bulletproof.errors import BulletproofError


class Verb(NamedTuple):
    """One verb: where its code is and what the help says; the code is imported only when the verb is used."""

    group: str
    summary: str
    module: str = ""
    """Below bulletproof.cli; the verb's own name when empty."""
    is_hidden: bool = False
    """Whether no person ever types it."""


VERBS: dict[str, Verb] = {
    "init": Verb("Begin", "Look at an app and write its bulletproof.toml"),
    "setup": Verb("Begin", "Bring this Bulletproof to a host, over SSH"),
    "dev": Verb("Begin", "Run the app here as it is configured, with its workers, while you work on it"),
    "ci": Verb("Begin", "Write the workflows by which GitHub Actions tests, plans and deploys"),
    "demo": Verb("Begin", "Deploy a real app under load, break it in many ways, and show that nothing was lost"),
    "prove": Verb("Begin", "Kill deployments of this app anywhere, on hosts of their own, and show that it survives"),
    "deploy": Verb("Deploy", "Make a revision of the app live, without dropping a request"),
    "plan": Verb("Deploy", "Rehearse a deployment and tell what it would do, changing nothing"),
    "rollback": Verb("Deploy", "Make an earlier release live again, with today's data and settings"),
    "restart": Verb("Deploy", "Replace the running processes by new ones, without dropping a request"),
    "attach": Verb("Deploy", "Watch the deployment that runs, from its beginning"),
    "abort": Verb("Deploy", "Undo the deployment that runs"),
    "env": Verb("Deploy", "Set, list and unset the app's settings"),
    "status": Verb("Look", "What runs, since when, and where"),
    "check": Verb("Look", "Whether all is well, for people and for monitoring"),
    "doctor": Verb("Look", "What is wrong and why, looked at closely; and with --fix, mended"),
    "history": Verb("Look", "What was wrong and when, with the deployments between; each day in numbers"),
    "uptime": Verb("Look", "How much of the time the app answered"),
    "releases": Verb("Look", "Every deployment and how it ended"),
    "logs": Verb("Look", "What the app prints"),
    "backup": Verb("Operate", "Make, prove, list, restore and prune backups of the data"),
    "run": Verb("Operate", "Run a command as the live release would: its packages, its settings, its data"),
    "start": Verb("Operate", "Let serve again what was live"),
    "stop": Verb("Operate", "Stop the app and keep it stopped"),
    "maintenance": Verb("Operate", "Close the app to the public, who get a page instead, and open it again"),
    "recover": Verb("Operate", "Finish or undo what a killed deployment left (the supervisor does it by itself)"),
    "keys": Verb("Operate", "Let others, such as GitHub Actions, in over SSH to do little"),
    "handout": Verb("Operate", "A copy of the data, on standard output", is_hidden=True),
    "serve": Verb("Operate", "What a key of `keys add` is made to run", is_hidden=True),
    "destroy": Verb("Operate", "Remove the app from this host; its data is set aside, never deleted"),
}

_EXAMPLE = """\
Deploy a Python web app on your own server:

\b
  cd myapp
  bulletproof init
  bulletproof deploy
"""


class _Verbs(click.Group):
    """A group whose verbs are imported when they are used and listed by what they are for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return [name for name, verb in VERBS.items() if not verb.is_hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        module = importlib.import_module(f"bulletproof.cli.{verb.module or cmd_name}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)  # noqa: S101  a verb's file that lacks its command is our bug
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if word not in VERBS and not word.startswith("-"):
            import difflib  # noqa: PLC0415  only for a typo

            near = difflib.get_close_matches(word, self.list_commands(ctx), n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {word!r}.{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        width = max(map(len, VERBS))
        for group in dict.fromkeys(verb.group for verb in VERBS.values()):
            with formatter.section(group):
                formatter.write_dl(
                    [
                        (name.ljust(width), verb.summary)
                        for name, verb in VERBS.items()
                        if verb.group == group and not verb.is_hidden
                    ]
                )


def default_root() -> str:
    """Where apps live when nobody says: on a server that was set up /, else the user's data directory."""
    if os.geteuid() == 0 and os.path.exists("/etc/bulletproof/server"):  # noqa: PTH110  see `bulletproof`
        return "/"
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")  # noqa: PTH111  see `bulletproof`
    return f"{base}/bulletproof"


@click.group(
    cls=_Verbs, help=_EXAMPLE, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--root",
    type=click.Path(file_okay=False),
    envvar="BULLETPROOF_ROOT",
    help="The folder that holds the embedded host.  [default: the user's data directory]",
)
@click.option(
    "--to",
    metavar="HOST",
    help="The host by SSH that the verb is about: a name from [hosts], or [USER@]HOST[:PORT].",
)
@click.version_option(__version__, message="bulletproof %(version)s")
@click.pass_context
def bulletproof(context: click.Context, root: str | None, to: str | None) -> None:
    """Keep root and host for the verb; and let another machine's command line in, if it fits."""
    if to is not None:
        _require_host_option(context, context.invoked_subcommand or "")
        context.meta["bulletproof.to"] = to
    if "BULLETPROOF_CLIENT" in os.environ:
        from bulletproof.cli.client import admit  # noqa: PLC0415  only over SSH

        admit(context)
    from pathlib import Path  # noqa: PLC0415  8 ms of processor time that the help does not need

    context.obj = Path(root or default_root()).absolute()


def _require_host_option(context: click.Context, name: str) -> None:
    """Raise a usage error for a verb that is done on this machine only."""
    command = bulletproof.get_command(context, name)
    is_group = isinstance(command, click.Group)
    if command and not is_group and all(parameter.name != "to" for parameter in command.params):
        raise click.UsageError(f"{name} is done here only; it takes no --to")


def main() -> None:
    """Run the command line; every error becomes words on stderr and an exit code."""
    try:
        bulletproof(standalone_mode=False, prog_name="bulletproof")
    except BulletproofError as error:
        from bulletproof.cli.words import tell_error  # noqa: PLC0415  only when there is one

        verb = next((word for word in sys.argv[1:] if word in VERBS), "")
        tell_error(error, as_json="--json" in sys.argv, verb=verb)
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(0)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; nothing was changed by this command", err=True)
        sys.exit(130)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except BrokenPipeError:
        # Whoever read our output went away; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        # The folder we stand in is gone, or what we say cannot be written.
        sys.stderr.write(f"error: system-error\n  the system refused: {error}\n")
        sys.exit(1)
