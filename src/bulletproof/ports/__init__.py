"""The ports: what an operation may ask of a host, in words only, and the Host that carries them."""

from bulletproof.ports.backups import Backups, Replica, Taking
from bulletproof.ports.data import REPLAY, Command, Database, Migrator, SchemaState, Swap
from bulletproof.ports.host import Drift, Host, Resources, Trespass
from bulletproof.ports.rehearsal import Adoption, Origin, Rehearsal
from bulletproof.ports.releases import NO_SETTINGS, Manifest, Mender, Releases, SettingsStore
from bulletproof.ports.serving import Proxy, Supervisor

__all__ = [
    "NO_SETTINGS",
    "REPLAY",
    "Adoption",
    "Backups",
    "Command",
    "Database",
    "Drift",
    "Host",
    "Manifest",
    "Mender",
    "Migrator",
    "Origin",
    "Proxy",
    "Rehearsal",
    "Releases",
    "Replica",
    "Resources",
    "SchemaState",
    "SettingsStore",
    "Supervisor",
    "Swap",
    "Taking",
    "Trespass",
]
