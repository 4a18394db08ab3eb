"""The replica: every change of the live database is sent away as it is made, to go back to a point in time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from bulletproof.domain.depot import DepotUrl, read_depot_url
from bulletproof.domain.layout import Layout
from bulletproof.domain.offsite import Connection
from bulletproof.domain.process import ProcessSpec, replica_name
from bulletproof.errors import Refused, UsageError

REPLICA = "replica"
"""Its folder off site, below the app's; and its name where people read of it."""
KEPT = "to the second for the last hour, to half a minute for a week"
"""How near a point can be got to a time."""

_KEPT_FOR = {
    "snapshot": {"interval": "24h", "retention": "168h"},
    # Each second is a file of its own in a bucket, and all of them are listed at each check.
    "l0-retention": "1h",
    "l0-retention-check-interval": "5m",
}
_LAST_SYNC_SECONDS = 10
"""For so long it tries to send what is not sent yet when it is told to end."""
_STOP_MARGIN_SECONDS = 5
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_AGO = re.compile(r"(\d{1,6}) (second|minute|hour|day)s? ago")
_WITHIN_A_SECOND = timedelta(seconds=1)
"""Litestream tells times without their fractions."""


class Step(msgspec.Struct, frozen=True):
    """One file of a replica: the changes from one transaction to another."""

    min_txid: str
    max_txid: str
    timestamp: datetime
    """When the last of its changes was taken, without fractions of a second."""


def require_replicable(connection: Connection) -> DepotUrl:
    """The place of a connection. Raises Refused for one that a replica cannot be sent to."""
    place = read_depot_url(connection.url)
    if place.kind == "sftp":
        raise Refused(
            "replica-not-over-sftp",
            "Litestream knows nothing of ssh's own configuration, agent and known hosts, so nothing is sent over sftp",
            hint="bulletproof backup connect s3://BUCKET/PREFIX --continuous",
        )
    if connection.secrets.get("AWS_SESSION_TOKEN"):
        raise Refused(
            "replica-keys-expire",
            "AWS_SESSION_TOKEN says that the bucket's keys expire, and the replica would end with them",
            hint="use the keys of a user of its own for the bucket, and unset AWS_SESSION_TOKEN",
        )
    return place


def configuration(connection: Connection, layout: Layout, database: Path) -> bytes:
    """What Litestream reads, in JSON, which is YAML as well. Raises as `require_replicable` does."""
    place = require_replicable(connection)
    folder = "/".join(part for part in (place.folder.rstrip("/"), layout.app, REPLICA) if part)
    replica = _bucket(place.host, connection.secrets, folder) if place.kind == "s3" else _folder(place.folder, folder)
    return msgspec.json.encode(
        {
            "dbs": [{"path": str(database), "meta-path": str(layout.replica_work), "replica": replica}],
            **_KEPT_FOR,
            "shutdown-sync-timeout": f"{_LAST_SYNC_SECONDS}s",
            "logging": {"level": "warn"},
        }
    )


def _folder(root: str, folder: str) -> dict[str, object]:
    return {"type": "file", "path": folder if root.rstrip("/") else f"/{folder}"}


def _bucket(bucket: str, secrets: dict[str, str], folder: str) -> dict[str, object]:
    endpoint = secrets.get("AWS_ENDPOINT_URL")
    return {
        "type": "s3",
        "bucket": bucket,
        "path": folder,
        "region": secrets.get("AWS_REGION") or "us-east-1",
        "access-key-id": secrets.get("AWS_ACCESS_KEY_ID", ""),
        "secret-access-key": secrets.get("AWS_SECRET_ACCESS_KEY", ""),
        "force-path-style": True,
        **({"endpoint": endpoint.rstrip("/")} if endpoint else {}),
    }


def command(program: Path, verb: str, file: Path, *words: str) -> tuple[str, ...]:
    """A command line of Litestream, told nothing but what stands in its configuration `file`."""
    return (str(program), verb, "-no-expand-env", "-config", str(file), *words)


def environment(layout: Layout) -> dict[str, str]:
    """All of it: a bucket's keys in ours would win over those of the configuration."""
    return {**_ENVIRONMENT, "HOME": str(layout.state)}


def replica_process(program: Path, layout: Layout, content: bytes) -> ProcessSpec:
    """What replicates the live database as the configuration says, whose content its name tells apart."""
    argv = command(program, "replicate", layout.replica)
    return ProcessSpec(
        name=replica_name(hashlib.sha256(repr((argv, content)).encode()).hexdigest()[:8]),
        argv=argv,
        folder=layout.state,
        log=layout.replica_log,
        environment=environment(layout),
        stop_seconds=_LAST_SYNC_SECONDS + _STOP_MARGIN_SECONDS,
    )


def read_moment(text: str, now: datetime) -> datetime:
    """The time that a person means: ISO 8601, in UTC where it says no other zone, or `10 minutes ago`.

    Raises UsageError `time-odd`.
    """
    if found := _AGO.fullmatch(text.strip()):
        return now - timedelta(**{f"{found[2]}s": int(found[1])})
    try:
        read = datetime.fromisoformat(text.strip())
        moment = (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        words = f"`{''.join(filter(str.isprintable, text))}` is no time"
        raise UsageError("time-odd", words, hint="write it as 2026-01-31T12:00:00Z or '10 minutes ago'") from error
    if moment > now:
        raise UsageError("time-odd", f"{text.strip()} is yet to come", hint="bulletproof backup create")
    return moment


def as_written(moment: datetime) -> str:
    """A time as the journal and Litestream read it, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def require_since(steps: Iterable[Step], moment: datetime) -> None:
    """Raise Refused for a time from before a replica's beginning, and for a replica that has none."""
    begins = [step.timestamp for step in steps if int(step.min_txid, 16) == 1]
    if not begins:
        raise Refused(
            "replica-empty",
            "there is no replica of this app there",
            hint="bulletproof backup connect URL --continuous, then bulletproof restart",
        )
    if moment < min(begins) + _WITHIN_A_SECOND:
        raise Refused(
            "point-too-early",
            f"the replica begins at {min(begins):%Y-%m-%d %H:%M:%S} UTC, and nothing is known of before",
            hint="bulletproof backup list --off-site",
        )
