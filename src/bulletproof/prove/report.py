"""What was proven, as a table: how many faults met which step, and what came of them."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from bulletproof import __version__
from bulletproof.prove.sweep import OVERLOAD, RECOVERY_SECONDS, Verdict

_KINDS = ("KILL", "ENOSPC", "EIO", "other")


def rows(verdicts: Iterable[Verdict]) -> list[tuple[str, ...]]:
    """One per scenario and step, sorted: faults of each kind, which release was left, broken promises, recoveries."""
    groups: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.has_fired:
            groups[verdict.scenario, verdict.step].append(verdict)
    return [(*place, *_row(found)) for place, found in sorted(groups.items())]


def _row(found: Sequence[Verdict]) -> tuple[str, ...]:
    kinds = Counter(verdict.fault for verdict in found)
    ends = Counter(verdict.outcome for verdict in found)
    bad = sum(not verdict.is_good for verdict in found)
    return (*(str(kinds[kind]) for kind in _KINDS), str(ends["old"]), str(ends["new"]), str(bad), *_times(found))


def _times(found: Iterable[Verdict]) -> tuple[str, str, str]:
    """Median, 99th percentile (nearest rank) and worst of the recoveries, in seconds; dashes where there was none."""
    seconds = sorted(verdict.recovery_seconds for verdict in found if verdict.has_recovered)
    if not seconds:
        return "-", "-", "-"
    ranks = (math.ceil(len(seconds) * share) - 1 for share in (0.5, 0.99, 1.0))
    median, most, worst = (f"{seconds[rank]:.1f} s" for rank in ranks)
    return median, most, worst


HEADINGS = ("scenario", "step", *_KINDS, "old", "new", "broken", "recovered in", "99 % in", "worst")


def markdown(verdicts: Sequence[Verdict]) -> str:
    """The table as it stands in the documentation."""
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *rows(verdicts)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def verdict_line(verdicts: Sequence[Verdict], seconds: float) -> str:
    """The whole in two sentences."""
    fired = [verdict for verdict in verdicts if verdict.has_fired]
    bad = sum(not verdict.is_good for verdict in verdicts)
    failed = sum(max(0, verdict.failed_requests) for verdict in verdicts if not verdict.is_seen)
    seen = sum(max(0, verdict.failed_requests) for verdict in verdicts if verdict.is_seen)
    unheard = sum(verdict.failed_requests < 0 for verdict in verdicts)
    return (
        f"{len(fired)} faults in {seconds:.0f} s ({seconds / max(1, len(fired)):.2f} s each, all hosts together):"
        f" {bad} broke a promise, {failed} requests failed"
        f" ({seen} more where the fault was in what serves them)"
        + (f"; the load paused by itself in {unheard}" if unheard else "")
        + f". {_recoveries(fired)}"
    )


def _recoveries(fired: Sequence[Verdict]) -> str:
    recovered = [verdict for verdict in fired if verdict.has_recovered]
    if not recovered:
        return "Nothing had to recover"
    median, most, worst = _times(recovered)
    late = sum(verdict.is_late and verdict.is_good for verdict in recovered)
    busiest = max(verdict.load for verdict in recovered)
    return (
        f"{len(recovered)} recoveries by itself: half within {median}, 99 % within {most}, the slowest {worst};"
        f" {late} later than {RECOVERY_SECONDS:.0f} s on an overloaded machine"
        f" (from a load average of {OVERLOAD:.0f} per processor on; here at most {busiest:.1f})"
    )


_PAGE = """\
# Proof

`make prove` kills real deployments, with a full or a broken disk at one system call after the other, under a light load
with a ledger; an oracle that knows nothing of the tool looks from outside what came of each. Written by that command.

Bulletproof {version}, {date}, seed {seed}, {processors} processors. The recorded scenarios know {known} faults.

{sentence}.

`old` and `new`: which release served when the host was whole again, by itself. `broken`: faults after which a promise
was not kept; each is named below. Requests that failed count where the fault was in the deployer alone. `recovered in`:
the median time from the deployer's end until all was whole, with no command, where it had left something to recover;
later than ten seconds is a broken promise, unless the machine was overloaded. `recovery of …`: faults that met the
recovery after a fault in that scenario, or the recovery after that, up to five in a row; in the end all is whole, and
that takes as long as the pauses between recoveries, so it is not timed.

{table}

{broken}
"""


def page(verdicts: Sequence[Verdict], seconds: float, *, seed: int, known: int) -> str:
    """The page for the documentation."""
    bad = [f"- `{one.name}`: {' '.join('; '.join(one.problems).split())[:300]}" for one in verdicts if not one.is_good]
    return _PAGE.format(
        version=__version__,
        date=datetime.now(UTC).date().isoformat(),
        seed=seed,
        processors=os.cpu_count(),
        known=f"{known:,}",
        sentence=verdict_line(verdicts, seconds),
        table=markdown(verdicts),
        broken="\n".join(bad) if bad else "No promise was broken.",
    )
