"""A host that is a server: systemd runs its processes, each as a user that can reach nothing but what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from bulletproof.adapters.systemd import SystemdSupervisor
from bulletproof.domain.account import BUILD_USER, OURS, PROXY_USER, Accounts, sandbox_of
from bulletproof.domain.config import AppConfig
from bulletproof.domain.deployment import Deployment, Kind, Live
from bulletproof.domain.layout import Layout
from bulletproof.domain.ownership import Owned, beside_database, owned, strangers
from bulletproof.domain.process import ProcessSpec
from bulletproof.domain.rotation import rule, rule_of
from bulletproof.domain.units import facade
from bulletproof.effects.ownership import claim, differences, find_account, make_missing
from bulletproof.errors import Refused
from bulletproof.operations.attempt import Attempt
from bulletproof.operations.server import COMMAND
from bulletproof.operations.steps import instance_process
from bulletproof.operations.workers import live_background
from bulletproof.ports import Host, Trespass
from bulletproof.wiring.known import is_server, was_begun


def accounts_of(root: Path, config: AppConfig) -> Accounts | None:
    """Who runs what of an app; None on the embedded host, where all of it is whoever deploys. Raises Refused."""
    if not is_server(root):
        return None
    if config.app.user in OURS:
        words = f"{config.app.user} is Bulletproof's own user, and would let the app read every site's certificates"
        raise Refused("user-is-ours", words, hint="another `user` under [app], then: bulletproof setup")
    app, proxy, builder = map(find_account, (config.app.user, PROXY_USER, BUILD_USER))
    return Accounts(app=app, proxy=proxy, builder=builder)


def as_server(
    host: Host, config: AppConfig, accounts: Accounts, user_of: Callable[[str], str | None], *, is_looking: bool
) -> Host:
    """The host with what is otherwise on a server; `user_of` tells as whom an app runs that was live.

    Whatever the app could exchange for a link is ours before any of it is opened; who is only looking leaves it, and
    opens none of it. Raises Refused `place-not-plain`, and `user-changed`, and `place-taken` before the first
    deployment.
    """
    layout = host.layout
    everything = owned(layout, accounts, config.app.persistent, config.database.file)
    of_data = [one for one in everything if one.path.is_relative_to(layout.data)]
    of_data += beside_database(layout, accounts, config.database.file)
    if not was_begun(layout):
        _refuse_strangers(layout, config)
    live_as = user_of(layout.app)
    _refuse_another_user(layout.app, live_as, config.app.user)
    if not is_looking:
        claim(of_data if live_as else [*of_data, *(one for one in everything if one.path.is_relative_to(layout.home))])
    supervisor = SystemdSupervisor(
        layout.app,
        confine=lambda name: sandbox_of(name, layout, accounts),
        prepare=lambda: make_missing(everything),
        facade=facade(layout.app, str(COMMAND), (layout.error_log, layout.deployment_log, layout.health_log)),
        lasting={rule_of(layout.app): rule(layout.app)},
    )

    def wipe() -> None:
        supervisor.remove_facade()
        host.wipe()

    def trespasses() -> tuple[Trespass, ...]:
        wrong = (_in_words(one, found) for one, found in differences(everything))
        return (*wrong, *_sharers(layout, config.app.user, user_of))

    def unsafe_data() -> str:
        # What SQLite lays beside the database is mostly made by the app; it follows no link there (O_NOFOLLOW).
        differences(beside_database(layout, accounts, config.database.file))
        found = differences(one for one in everything if one.path.is_relative_to(layout.data))
        return _in_words(*found[0]).words if found else ""

    return replace(
        host,
        supervisor=supervisor,
        unsafe_data=unsafe_data,
        wipe=wipe,
        claim_data=lambda: claim(of_data),
        trespasses=trespasses,
        drifts=lambda live: supervisor.drifts(_processes(host, live)),
        reread=supervisor.reread,
    )


def _processes(host: Host, live: Live) -> tuple[ProcessSpec, ...]:
    """All that runs while the app serves. Raises StepFailed for a release that is not whole."""
    manifest = host.releases.manifest(live.release)
    deployment = Deployment(
        number=live.number, kind=Kind.RESTART, release=live.release, revision="", previous=None, started_at=""
    )
    attempt = Attempt(host=host, deployment=deployment)
    return (
        instance_process(attempt, manifest, live.number),
        *host.proxy.processes(),
        *live_background(host, manifest, live.number),
    )


def _refuse_another_user(app: str, live_as: str | None, wished: str) -> None:
    """What lives could neither read its code nor write its data once these belong to another."""
    if live_as is not None and live_as != wished:
        words = f"{app} runs as {live_as}, to whom its data belong, and `user` under [app] says {wished}"
        raise Refused("user-changed", words, hint=f'user = "{live_as}" under [app] in bulletproof.toml')


def _refuse_strangers(layout: Layout, config: AppConfig) -> None:
    """Before the first deployment: what is another program's would become the app's, and go with it one day."""
    folders = [folder for folder in (layout.home, layout.data, layout.logs) if folder.is_dir()]
    found = {folder: {one.name for one in folder.iterdir()} for folder in folders}
    if lying := strangers(layout, config.app.persistent, config.database.file, found):
        place = lying[0].parent
        words = f"{place} is there already, and {lying[0].name} in it is nothing of an app of Bulletproof's"
        hint = f"another `name` in bulletproof.toml; or, if it was the app's before: mv {place} {place}.old"
        raise Refused("place-taken", words, hint=hint)


def _in_words(wished: Owned, found: str) -> Trespass:
    right = f"{wished.owner.name}:{wished.group.name} {wished.mode:o}"
    return Trespass(words=f"{wished.path} is {found}, and must be {right}", commands=wished.commands, right=wished)


def _sharers(layout: Layout, user: str, user_of: Callable[[str], str | None]) -> Iterator[Trespass]:
    """Other apps that run as this one's user: each could read the other's data, and what its processes know."""
    for journal in sorted(layout.state.parent.glob("*/journal.db")):
        other = journal.parent.name
        if other != layout.app and user_of(other) == user:
            words = f"{other} runs as {user} as well, so each of the two could read the other's data and secrets"
            command = f'bulletproof setup --local --user {layout.app}; then user = "{layout.app}" under [app]'
            yield Trespass(words=words, commands=(command,))
