"""Which app on which root, and the session in which a verb may change it."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar, cast

import click
import msgspec

from bulletproof.cli.actions import say
from bulletproof.cli.afar import Packing, hand_over, host_of, remember_host
from bulletproof.cli.detached import detach_and_watch, is_to_be_detached
from bulletproof.cli.render import Renderer
from bulletproof.cli.whence import our_origin
from bulletproof.domain import toml
from bulletproof.domain.config import AppConfig
from bulletproof.domain.events import Event, StepStarted
from bulletproof.domain.layout import Layout
from bulletproof.effects import durable, lock, room
from bulletproof.effects.interrupts import Interrupts
from bulletproof.effects.project import find_project
from bulletproof.engine.journal import Entry, Journal
from bulletproof.engine.pipeline import Surroundings
from bulletproof.errors import UsageError
from bulletproof.operations.activate import Session
from bulletproof.wiring import connect, is_server, known_config, layout_of

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])

INHERITED_LOCK = "BULLETPROOF_LOCK_FD"
"""The supervisor passes the lock of a dead deployer to `recover` by this descriptor."""


def host_options(function: F) -> F:
    """The options by which every verb finds its app; with `--to` its words are handed to the host."""
    return sent_with(None)(function)


def sent_with(packing: Packing | None) -> Callable[[F], F]:
    """The same for a verb of which the host needs more than the words: what `packing` makes."""

    def decorate(function: F) -> F:
        return handed(packing)(_place_options(function))

    return decorate


def handed(packing: Packing | None) -> Callable[[F], F]:
    """For a verb that is about a host and no app of it: with `--to` its words are handed there."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def here_or_there(*args: object, **kwargs: object) -> object:
            context = click.get_current_context()
            host = host_of(context)
            return function(*args, **kwargs) if host is None else hand_over(context, host, packing)

        return to_option(cast("F", here_or_there))

    return decorate


def to_option(function: F) -> F:
    """The host that is meant."""
    return click.option(
        "--to",
        metavar="HOST",
        expose_value=False,
        callback=remember_host,
        help="A host by SSH: a name from [hosts], or [USER@]HOST[:PORT].",
    )(function)


def _place_options(function: F) -> F:
    function = click.option("--app", "app_name", metavar="NAME", help="The app, when not in its folder.")(function)
    return click.option(
        "--root",
        "verb_root",
        type=click.Path(path_type=Path, file_okay=False),
        help="The folder that holds the embedded host.",
    )(function)


def wait_option(function: F) -> F:
    """How long to wait for another deployment.

    A verb that has it takes the lock: asked for over SSH, or with `--detach`, it is done in a process of its own.
    """

    @functools.wraps(function)
    def here_or_detached(*args: object, **kwargs: object) -> object:
        is_left = bool(kwargs.pop("is_left", False))
        on_server = is_server(_root_of(click.get_current_context()))
        if is_to_be_detached(wished=is_left, on_server=on_server):
            target = _place_of(click.get_current_context())
            detach_and_watch(target.app, target.layout.lock, is_left=is_left, on_server=on_server)
        return function(*args, **kwargs)

    return patience_option("another deployment")(cast("F", here_or_detached))


def patience_option(whom: str) -> Callable[[F], F]:
    """How long to wait for `whom`, for a verb that takes the lock and is always done where it was typed."""
    return click.option(
        "--wait",
        "wait_seconds",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="SECONDS",
        help=f"Wait so long for {whom} to end, instead of refusing at once.",
    )


def detach_option(function: F) -> F:
    """Leave the deployment to itself; above `wait_option`."""
    return click.option("--detach", "is_left", is_flag=True, help="Come back as soon as it has begun; it goes on.")(
        function
    )


def _root_of(context: click.Context) -> Path:
    return Path(context.params["verb_root"] or context.find_object(Path) or Path()).absolute()


def _place_of(context: click.Context) -> Target:
    """The app that a verb is about, before the verb looks itself."""
    chosen = context.params
    return find_target(context.find_object(Path) or Path(), chosen["verb_root"], chosen["app_name"])


def loss_option(function: F) -> F:
    """Leave to let a migration drop what users made."""
    return click.option(
        "--allow-data-loss",
        "may_lose_data",
        is_flag=True,
        help="Let a migration take away what users made (the rehearsal tells what, and how much).",
    )(function)


def json_option(function: F) -> F:
    """Machine-readable output."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")(function)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An app on a root, and its project when we stand in it."""

    root: Path
    app: str
    config: AppConfig | None = None
    folder: Path | None = None

    @property
    def layout(self) -> Layout:
        """Where everything of the app lies."""
        return layout_of(self.root, self.app)

    def journal(self) -> Journal:
        """The app's journal, for reading. Raises UsageError when the app is not on this host."""
        return self._there(Journal.read(self.layout.journal))

    def glance(self) -> Journal:
        """The app's journal as it is now, read without a trace. Raises UsageError when the app is not on this host."""
        return self._there(Journal.glance(self.layout.journal))

    def _there(self, journal: Journal | None) -> Journal:
        if journal is None:
            raise UsageError(
                "nothing-deployed",
                f"{self.app} was never deployed on this host ({self.root})",
                hint="bulletproof deploy",
            )
        return journal


def find_target(root: Path, verb_root: Path | None, app_name: str | None) -> Target:
    """The app that a verb is about: named, or the project's that we stand in.

    Raises UsageError when there is none, or its configuration is wrong.
    """
    chosen = (verb_root or root).absolute()
    if app_name:
        return Target(root=chosen, app=toml.parse(f"name = {app_name!r}", "--app").name)
    project = find_project(Path.cwd())
    return Target(root=chosen, app=project.config.name, config=project.config, folder=project.folder)


@contextmanager
def open_session(
    target: Target, verb: str, renderer: Renderer, *, wait_seconds: float = 0.0, on_full_disk: bool = False
) -> Iterator[Session]:
    """Hold the lock and open everything that a changing verb needs.

    `on_full_disk` is for one that frees the disk, or takes none: where no byte is left, it has what the journal put by.
    The lock's note is emptied at the end only when nothing is left to finish or undo; otherwise it stays, and the
    supervisor sees that its owner died, and recovers. Raises LockHeld when another deployment holds the lock.
    """
    layout = target.layout
    durable.make_folder(layout.state, mode=0o700)
    put_by = _way_to_put_by(layout, on_full_disk=on_full_disk)
    with Interrupts() as interrupts:
        held = _lock(layout, lock.Holder.of_this_process(verb, step="begin"), wait_seconds)
        journal = Journal.open(layout.journal)
        try:
            put_by(layout.rooms[0])
            yield _session(target, verb, journal, _Watcher(held, interrupts, renderer))
        finally:
            interrupts.shield()
            room.free(*layout.rooms)
            if journal.unfinished() is None:
                held.release()
            journal.close()


def _session(target: Target, verb: str, journal: Journal, watcher: _Watcher) -> Session:
    config, origin = _config(target, verb, journal), our_origin()
    return Session(
        host=connect(target.root, target.app, config, has_new_proxy=_brings_config(target, verb)),
        journal=journal,
        around=Surroundings(
            tell=watcher.tell,
            clock=time.monotonic,
            shield=watcher.interrupts.shield,
            expose=watcher.interrupts.expose,
            make_room=lambda: room.free(*target.layout.rooms),
        ),
        begun=watcher.begun,
        taken_up=watcher.taken_up,
        started_by=origin.words,
        origin=origin,
    )


class _Watcher(msgspec.Struct, frozen=True):
    """Tells the lock's note and the screen what is going on."""

    held: lock.HeldLock
    interrupts: Interrupts
    renderer: Renderer

    def tell(self, event: Event) -> None:
        """An event of the deployment."""
        if isinstance(event, StepStarted):
            self.held.update(step=event.step)
        self._show(self.renderer.event, event)

    def begun(self, entry: Entry) -> None:
        """A deployment begins."""
        self.held.update(step="begin", deployment=entry.deployment.number)
        self._show(self.renderer.begun, entry)

    def taken_up(self, entry: Entry) -> None:
        """One that a crash left is finished or undone, which nothing may interrupt."""
        self.held.update(step="recover", deployment=entry.deployment.number)
        self.interrupts.shield()
        self._show(self.renderer.taken_up, entry)

    def _show(self, show: Callable[[T], None], what: T) -> None:
        try:
            show(what)
        except OSError:
            # Nobody is there to be told. Before the commit that ends the deployment; an undo or a finish goes on.
            if not self.interrupts.is_shielded:
                raise


def _way_to_put_by(layout: Layout, *, on_full_disk: bool) -> Callable[[Path], None]:
    """Nothing is put by on a disk that is full: there what was put by before is spent."""
    if not (on_full_disk and room.is_tight(layout.state)):
        return room.put_by
    Journal.spend_spare(layout.journal)
    return lambda _: None


def _lock(layout: Layout, holder: lock.Holder, wait_seconds: float) -> lock.HeldLock:
    inherited = os.environ.pop(INHERITED_LOCK, "")
    if not inherited:
        return lock.acquire(layout.lock, holder, wait_seconds=wait_seconds, tell=_tell_waiting)
    held = lock.inherit(int(inherited), layout.lock)
    held.announce(holder)
    return held


def _tell_waiting(owner: lock.Holder) -> None:
    """Half an hour may pass; nobody is to wonder meanwhile."""
    with suppress(OSError):
        say(f"waiting for {owner.in_words()}")


def _brings_config(target: Target, verb: str) -> bool:
    return verb == "deploy" and target.config is not None


def _config(target: Target, verb: str, journal: Journal) -> AppConfig:
    """The project's configuration for a deployment from source; for all else the live release's, as it runs."""
    if _brings_config(target, verb) and target.config is not None:
        return target.config
    return known_config(target.layout, journal.lived())
