"""Depots, the places off site for backups, by their address."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bulletproof.adapters.depots.folder import FolderDepot
from bulletproof.adapters.depots.s3 import open_bucket
from bulletproof.adapters.depots.sftp import SftpDepot
from bulletproof.domain.address import find_address
from bulletproof.domain.depot import read_depot_url
from bulletproof.effects.depot import Depot


def open_depot(url: str, secrets: Mapping[str, str]) -> Depot:
    """The depot at `s3://BUCKET/PREFIX`, `sftp://[USER@]HOST[:PORT]/FOLDER` or `file:///FOLDER`; nothing is asked yet.

    `secrets` are the settings that a bucket needs: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and, where they are
    not those of Amazon's first region, AWS_REGION, AWS_ENDPOINT_URL and AWS_SESSION_TOKEN. The others go by the
    person's own ssh configuration, and by the mode of the folder.

    Raises UsageError `offsite-url-odd` and `offsite-keys-missing`, Refused `offsite-not-installed`.
    """
    place = read_depot_url(url)
    if place.kind == "s3":
        return open_bucket(place.host, place.folder, secrets)
    if place.kind == "sftp":
        return SftpDepot(find_address(place.host, {}), place.folder)
    return FolderDepot(Path(place.folder))
