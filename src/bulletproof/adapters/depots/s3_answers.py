"""What the answers of S3, and of those that speak like it, mean for a person."""

from __future__ import annotations

import html
import re

import msgspec

from bulletproof.adapters.depots.trouble import Trouble

SET_KEYS = "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=..., then: bulletproof backup connect s3://..."

_CODE = re.compile(r"<Code>([A-Za-z0-9.]+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_STATUS = re.compile(r"non-2xx status code: (\d{3}[A-Za-z ]*)")
_NO_CONNECTION = "kind: Connect"
_REASON = re.compile(r'(?:message|error): "([^"]+)"')


class _Meaning(msgspec.Struct, frozen=True, kw_only=True):
    codes: frozenset[str]
    """Those of S3, MinIO and Ceph, and statuses for an answer without one."""
    why: str
    hint: str
    may_pass: bool = False


# No server of S3's kind has been seen to say 401, and 404 without a code is what it says of a file.
_MEANINGS = (
    _Meaning(
        codes=frozenset({"NoSuchBucket", "InvalidBucketName"}),
        why="there is no bucket {bucket}",
        hint="aws s3 mb s3://{bucket} --endpoint-url {endpoint}",
    ),
    _Meaning(
        codes=frozenset(
            {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "RequestTimeTooSkewed"}
        ),
        why="the key was refused: {said}",
        hint=SET_KEYS,
    ),
    _Meaning(
        codes=frozenset({"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "507"}),
        why="there is no room left: {said}",
        hint="aws s3 ls --recursive --summarize s3://{bucket} --endpoint-url {endpoint}",
    ),
    _Meaning(
        codes=frozenset({"AccessDenied", "AllAccessDisabled", "AccountProblem", "403"}),
        why="the key may not do this, or there is no bucket {bucket}: {said}",
        hint="aws s3 ls s3://{bucket} --endpoint-url {endpoint}",
    ),
    _Meaning(
        codes=frozenset({"NoSuchKey", "404"}),
        why="there is no such file",
        hint="aws s3 ls --recursive s3://{bucket} --endpoint-url {endpoint}",
    ),
    _Meaning(
        codes=frozenset({"PreconditionFailed", "412"}),
        why="it was replaced while it was read",
        hint="aws s3 ls --recursive s3://{bucket} --endpoint-url {endpoint}",
        may_pass=True,
    ),
)
_ODD = _Meaning(
    codes=frozenset(),
    why="it answered {said}; one that is full can say this too",
    hint="aws s3 ls s3://{bucket} --endpoint-url {endpoint}",
)
_SILENT = _Meaning(codes=frozenset(), why="it cannot be reached: {said}", hint="curl -sSI {endpoint}")
_CUT_OFF = _Meaning(codes=frozenset(), why="the connection broke: {said}", hint="curl -sSI {endpoint}", may_pass=True)
"""The one that obstore does not try again: what has come of a piece is lost with it."""


def trouble_of(said: str, *, bucket: str, endpoint: str, hidden: tuple[str, ...]) -> Trouble:
    """The trouble that obstore tells of in many lines; no text of `hidden` is repeated."""
    code, words = _code_and_words(said)
    for secret in hidden:
        words = words.replace(secret, "...")
    found = (one for one in _MEANINGS if one.codes & {code, code[:3]})
    silent = _SILENT if _NO_CONNECTION in said else _CUT_OFF
    meaning = next(found, _ODD if code else silent)
    why = meaning.why.format(bucket=bucket, said=words)
    return Trouble(why, hint=meaning.hint.format(bucket=bucket, endpoint=endpoint), may_pass=meaning.may_pass)


def _code_and_words(said: str) -> tuple[str, str]:
    """The code of the answer, or its status, empty when there was none; and that with what it says."""
    code, message, status = _CODE.search(said), _MESSAGE.search(said), _STATUS.search(said)
    found = code[1] if code else status[1].strip() if status else ""
    if found:
        return found, f"{found}: {html.unescape(message[1])}" if message else found
    reasons = _REASON.findall(said)
    return "", reasons[-1] if reasons else said.partition("\n")[0].rpartition(" - ")[2]
