"""A depot in a bucket of S3, or of anything that speaks like it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from bulletproof.adapters.depots.s3_answers import SET_KEYS, trouble_of
from bulletproof.adapters.depots.trouble import Done, Trouble, getting, listing, putting, removing, tried
from bulletproof.domain.depot import check_name, check_prefix
from bulletproof.effects import partial
from bulletproof.effects.depot import not_installed
from bulletproof.errors import UsageError

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta
    from obstore.store import ClientConfig, RetryConfig, S3Credential, S3Store

_ENDPOINT = re.compile(r"https?://[A-Za-z0-9\[\]:._-]+/?")
_PART_BYTES = 8 << 20
_MOST_PARTS = 9_000
"""S3 takes at most 10,000 parts of a file."""
_PARTS_AT_ONCE = 4
_ONCE: tuple[float, ...] = ()
"""Obstore itself tries each request three times, so that no more than a part is sent again."""
_RETRIES: RetryConfig = {
    "max_retries": 2,
    "backoff": {"init_backoff": timedelta(seconds=1), "max_backoff": timedelta(seconds=4), "base": 4},
    "retry_timeout": timedelta(minutes=5),
}
# A part of 8 MiB goes up a line of 0.2 Mbit/s within the first; the second also counts while nothing comes back yet.
_PATIENCE: ClientConfig = {"timeout": "15m", "read_timeout": "10m", "connect_timeout": "15s"}


def open_bucket(bucket: str, prefix: str, secrets: Mapping[str, str]) -> S3Depot:
    """The depot below `prefix` in a bucket; what the environment says of other buckets plays no part.

    Raises UsageError `offsite-keys-missing` and `offsite-url-odd`, Refused `offsite-not-installed`.
    """
    missing = [name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if not secrets.get(name)]
    if missing:
        raise UsageError("offsite-keys-missing", f"s3://{bucket} needs {' and '.join(missing)}", hint=SET_KEYS)
    region = secrets.get("AWS_REGION") or "us-east-1"
    endpoint = (secrets.get("AWS_ENDPOINT_URL") or f"https://s3.{region}.amazonaws.com").rstrip("/")
    if not _ENDPOINT.fullmatch(endpoint):
        words = "AWS_ENDPOINT_URL is no http(s)://HOST[:PORT]"
        raise UsageError(
            "offsite-url-odd",
            words,
            hint="export AWS_ENDPOINT_URL=https://s3.example.org, then: bulletproof backup connect s3://...",
        )
    hidden = tuple(
        value for name, value in secrets.items() if name.startswith("AWS_") and re.search("KEY|TOKEN", name) and value
    )
    return S3Depot(_open_store(bucket, endpoint, region, secrets), bucket, prefix, endpoint, hidden)


def _open_store(bucket: str, endpoint: str, region: str, secrets: Mapping[str, str]) -> S3Store:
    """Everything that obstore would else read from the environment is given, and the keys by a provider alone."""
    try:
        from obstore.store import S3Store  # noqa: PLC0415  only those need it who put backups off site
    except ModuleNotFoundError as error:
        raise not_installed("obstore") from error

    def keys() -> S3Credential:
        return {
            "access_key_id": secrets["AWS_ACCESS_KEY_ID"],
            "secret_access_key": secrets["AWS_SECRET_ACCESS_KEY"],
            "token": secrets.get("AWS_SESSION_TOKEN") or None,
            "expires_at": None,
        }

    return S3Store(
        bucket,
        endpoint=endpoint,
        aws_endpoint_url_s3=endpoint,
        region=region,
        skip_signature=False,
        virtual_hosted_style_request=False,
        credential_provider=keys,
        client_options={**_PATIENCE, "allow_http": endpoint.startswith("http://"), "allow_invalid_certificates": False},
        retry_config=_RETRIES,
    )


@dataclass(frozen=True, slots=True)
class S3Depot:
    """The port Depot in a bucket. What a killed `put` has sent is no file; a rule of the bucket can delete it."""

    store: S3Store
    bucket: str
    prefix: str
    endpoint: str
    hidden: tuple[str, ...] = field(repr=False)
    """What no word may repeat."""

    @property
    def called(self) -> str:
        """The bucket and the prefix, and whose they are."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/") + f" at {self.endpoint.partition('://')[2]}"

    def put(self, file: Path, name: str) -> None:
        """Send it in parts of 8 MiB or more, each up to three times; the last request makes a file of them."""
        key = self._key(check_name(name))
        tried(putting(name, self.called), lambda: self._put(file, key), pauses=_ONCE)

    def get(self, name: str, file: Path) -> None:
        """Ask for it piece by piece, all of one version."""
        key = self._key(check_name(name))
        tried(getting(name, self.called), lambda: self._get(key, file))

    def names(self, prefix: str) -> tuple[str, ...]:
        """All names below a folder."""
        folder = self._key(check_prefix(prefix))
        return tried(listing(self.called), lambda: self._names(folder), pauses=_ONCE)

    def remove(self, name: str) -> None:
        """Delete it; one that is not there is no trouble to S3 either."""
        key = self._key(check_name(name))
        tried(removing(name, self.called), lambda: self._remove(key), pauses=_ONCE)

    def _put(self, file: Path, key: str) -> None:
        size = _size(file)
        with self._in_words():
            sent = self.store.put_async(
                key, file, chunk_size=max(_PART_BYTES, size // _MOST_PARTS), max_concurrency=_PARTS_AT_ONCE
            )
            _wait(sent)

    def _get(self, key: str, file: Path) -> None:
        with self._in_words():
            meta = _wait(self.store.get_async(key)).meta
        version = f"{meta['e_tag']} {meta['last_modified']} {meta['size']}"
        try:
            partial.fetch(
                file, version, meta["size"], lambda offset, length: self._read(key, meta["e_tag"], offset, length)
            )
        except EOFError as error:
            raise Trouble(f"it was cut off: {error}", may_pass=True) from error
        except OSError as error:
            hint = f"df -h {shlex.quote(str(file.parent))}"
            raise Trouble(f"it could not be written here: {error}", hint=hint) from error

    def _read(self, key: str, version: str | None, offset: int, length: int) -> bytes:
        options: GetOptions = {"range": (offset, offset + length), "if_match": version}
        with self._in_words():
            return _wait(_bytes_of(self.store.get_async(key, options=options)))

    def _names(self, folder: str) -> tuple[str, ...]:
        with self._in_words():
            found = _wait(_all_of(self.store, folder))
        start = f"{self.prefix}/" if self.prefix else ""
        return tuple(sorted(one["path"].removeprefix(start) for one in found))

    def _remove(self, key: str) -> None:
        with self._in_words():
            _wait(self.store.delete_async(key))

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self.prefix, name) if part)

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        from obstore.exceptions import BaseError  # noqa: PLC0415

        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            said = str(error)
            raise trouble_of(said, bucket=self.bucket, endpoint=self.endpoint, hidden=self.hidden) from error


def _size(file: Path) -> int:
    """Its bytes, when it can be read."""
    try:
        with file.open("rb") as opened:
            return os.fstat(opened.fileno()).st_size
    except OSError as error:
        raise Trouble(f"{file} cannot be read: {error.strerror}", hint=f"ls -l {shlex.quote(str(file))}") from error


async def _all_of(store: S3Store, folder: str) -> Sequence[ObjectMeta]:
    return await store.list_async(folder or None).collect_async()


async def _bytes_of(answer: Awaitable[GetResult]) -> bytes:
    return (await (await answer).bytes_async()).to_bytes()


def _wait(coming: Awaitable[Done]) -> Done:
    """Wait for a request so that a signal ends it at once, which one without asyncio would outlast."""
    import asyncio  # noqa: PLC0415  it costs 40 ms, which other commands should not pay

    found: list[Done] = []

    async def waiting() -> None:
        # Not returned: at its end asyncio asks which handler SIGINT has, which makes a text of all that a task returns.
        found.append(await coming)

    asyncio.run(waiting())
    return found[0]
