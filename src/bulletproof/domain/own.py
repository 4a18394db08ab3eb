"""A person's own checks: what is wrong with their tables, and what is made of what they found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from bulletproof.domain.check import Seen, Severity, Unseen
from bulletproof.domain.config import OwnCheck, Step
from bulletproof.domain.findings import FINDINGS
from bulletproof.domain.page import Page
from bulletproof.errors import StepFailed

_WAYS = ("url", "command", "entry")
_OF_URL = ("status", "text", "latency_ms", "certificate_days")
_GOOD, _REDIRECTED = range(200, 300), range(300, 400)
_SETTING = re.compile(r"\$(\$|[A-Za-z_][A-Za-z0-9_]*)")
_STATES = {0: True, 1: False, 2: False}


def oddities(check: object) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with a [check] table as it was written that no key alone tells; `{}` stands for the key's name."""
    tables = check if isinstance(check, dict) else {}
    own, visits = ({} if not isinstance(tables.get(name), dict) else tables[name] for name in ("own", "visit"))
    for kind, named in (("own", own), ("visit", visits)):
        for name in named:
            if name in FINDINGS:
                yield (kind, name), f"{{}} is the name of a check that is built in: bulletproof check --explain {name}"
    for name in own.keys() & visits.keys():
        yield ("visit", name), "{} is the name of one of your own checks as well"
    for name, one in own.items():
        if isinstance(one, dict):
            yield from ((("own", name, *keys), words) for keys, words in _odd_ways(one))
    skipped = tables.get("skip")
    for one in skipped if isinstance(skipped, list) else ():
        if isinstance(one, str) and one not in FINDINGS and one not in own and one not in visits:
            yield ("skip",), f"{{}} names {one}, and there is no such check; known are {', '.join(FINDINGS)}"


def _odd_ways(one: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], str]]:
    ways = [way for way in _WAYS if way in one]
    if len(ways) != 1:
        how = f"has {' and '.join(ways)}" if ways else "has none of them"
        yield (), f"{{}} needs exactly one of `url`, `command` and `entry`, and {how}"
    elif ways != ["url"]:
        yield from (((key,), f"{{}} goes with `url`, and here is `{ways[0]}`") for key in _OF_URL if key in one)
    elif "certificate_days" in one and not str(one["url"]).startswith("https:"):
        yield ("certificate_days",), "{} needs a `url` that begins with https"


def filled(send: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """What is typed, with the values of the settings that it names. Raises StepFailed for one that there is not."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name == "$":
            return "$"
        if name not in settings:
            raise StepFailed("setting-missing", f"there is no setting {name}", hint=f"bulletproof env set {name}=…")
        return settings[name]

    return {key: _SETTING.sub(value, text) for key, text in send.items()}


def trouble_with_step(step: Step, page: Page) -> str:
    """Why a page is not what the step of a visit expects; empty when it is."""
    if not page.status:
        return page.words
    allowed = step.status or (*_GOOD, *(_REDIRECTED if step.send or step.redirect else ()))
    if page.status not in allowed:
        leads = f", to {page.location}" if page.location else ""
        return f"it answered {page.status}{leads}"
    if step.redirect is not None and step.redirect not in {page.location, page.leads_to}:
        return f"it leads to {page.location or 'nowhere'}, not to {step.redirect}"
    return _trouble_with_text(page, step.text, step.no_text)


def trouble_with_url(check: OwnCheck, page: Page) -> str:
    """Why an answer is not what the check expects; empty when it is."""
    if not page.status:
        return page.words
    if page.status not in (check.status or (*_GOOD, *_REDIRECTED)):
        return f"it answered {page.status}"
    if words := _trouble_with_text(page, check.text, ""):
        return words
    if check.latency_ms is not None and page.seconds * 1000 > check.latency_ms:
        return f"it answered after {page.seconds * 1000:.0f} ms, and may take {check.latency_ms}"
    return "" if check.certificate_days is None else _trouble_with_days(page.certificate_days, check.certificate_days)


def seen_of_command(status: int, output: str, errors: str) -> Seen:
    """What a command found, as a Nagios plugin tells it. Raises Unseen when it cannot tell."""
    lines = [line.strip() for line in (output or errors).splitlines() if line.strip()]
    words = lines[0].partition("|")[0].strip() if lines else "it printed nothing"
    if status not in _STATES:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        raise Unseen(f"the command ended with {how}: {words}")
    severity = {1: Severity.WANTED, 2: Severity.REQUIRED}.get(status)
    return Seen(words=words, is_good=_STATES[status], severity=severity)


def _trouble_with_days(days: float | None, least: int) -> str:
    if days is None:
        return "it has no certificate: its address does not begin with https"
    return f"its certificate is good for {days:.0f} days more, not {least}" if days < least else ""


def _trouble_with_text(page: Page, text: str, no_text: str) -> str:
    if text and text not in page.text:
        return f"its answer does not have {text!r} in it"
    return f"its answer has {no_text!r} in it" if no_text and no_text in page.text else ""
