"""`bulletproof demo`: a real app under load, deployed, broken, killed and rolled back, and what its users saw."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from bulletproof.effects import durable


@click.command("demo")
@click.option("--keep", is_flag=True, help="Leave the app running at the end, and say where.")
def demo_command(*, keep: bool) -> None:
    """Deploy a real Flask app under constant traffic, break it in many ways, and show what its users saw.

    Everything happens in a folder of its own and on loopback. Exit status 1 when a request failed or a write was lost.
    """
    from rich.console import Console  # noqa: PLC0415  heavy, and `demo --help` needs none of it

    from bulletproof.demo.story import SCENES, Take, play, stage  # noqa: PLC0415
    from bulletproof.demo.table import add_take, empty_table, verdict  # noqa: PLC0415

    folder = Path(tempfile.mkdtemp(prefix="bulletproof-demo-"))
    talk = Console(stderr=True, highlight=False)

    def watch(take: Take) -> None:
        talk.print(f"  {take.scene.title}: {take.surprise or take.outcome}, {take.report.failed} failed", style="dim")

    with stage(folder, lambda words: talk.print(words, style="dim"), keep=keep) as prepared:
        talk.print(f"serving at {prepared.address}; now the traffic, and what can go wrong", style="dim")
        played = play(prepared, SCENES, watch)
    table = empty_table()
    for take in played.takes:
        add_take(table, take)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(table)
    for line in verdict(played):
        console.print(line)
    if keep:
        click.echo(f"still serving at {prepared.address}; to end it:")
        click.echo(f"  bulletproof --root {folder / 'root'} stop --app datacharted && rm -r {folder}")
    elif played.is_good:
        durable.remove_tree(folder)
    else:
        click.echo(f"logs and journal are kept in {folder}", err=True)
    sys.exit(0 if played.is_good else 1)
