"""The demonstration's table and verdict."""

from __future__ import annotations

from rich import box
from rich.table import Table

from bulletproof.demo.story import Play, Take

_WORDS = {"deployed": "went live", "undone": "undone, old one served"}


def empty_table() -> Table:
    """The table's head."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("what was tried")
    table.add_column("what happened")
    for title in ("seconds", "requests", "failed", "longest wait", "longest gap", "writes"):
        table.add_column(title, justify="right")
    return table


def add_take(table: Table, take: Take) -> None:
    """One row: a scene, and what its users saw."""
    report = take.report
    table.add_row(
        take.scene.title,
        f"[red]{take.surprise}[/red]" if take.surprise else _WORDS.get(take.outcome, take.outcome),
        f"{take.seconds:.1f}",
        str(report.requests),
        f"[red]{report.failed}[/red]" if report.failed else "0",
        f"{report.longest_wait_seconds:.2f} s",
        f"{report.longest_gap_seconds:.2f} s",
        str(report.writes_acknowledged),
    )


def verdict(play: Play) -> list[str]:
    """The sums, and what went wrong if anything did."""
    whole = play.whole
    seen = (
        f"{whole.requests} requests in {whole.window_seconds:.0f} s, {whole.failed} failed;"
        f" longest wait {whole.longest_wait_seconds:.2f} s,"
        f" longest time without a success {whole.longest_gap_seconds:.2f} s"
    )
    lines = [seen, f"{play.acknowledged} writes acknowledged, {play.lost} lost, {play.duplicated} doubled"]
    lines += [f"failed: {words}" for words in whole.failures]
    lines += [f"{take.scene.title}: {take.surprise}" for take in play.takes if take.surprise]
    return lines
