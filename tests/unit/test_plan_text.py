"""A plan in words: the headline says how it would end, and no line is wider than a terminal."""

from __future__ import annotations

import click
import msgspec
import pytest
from msgspec.structs import replace

from bulletproof.cli.plan_text import as_json, in_markdown, in_words
from bulletproof.domain.durability import Durability
from bulletproof.domain.report import PackageChange, Report, Times, Way, package_changes
from bulletproof.domain.schema import Change, Count
from bulletproof.effects.requirements import pins
from bulletproof.errors import StepFailed
from bulletproof.operations.plan import Plan

LOSS = Change(words="drops column user.username: 1,204 non-null values", lost=1204)
MIGRATION = Report(
    release="5-abc1234",
    previous="4-def5678",
    packages=(
        PackageChange(name="flask", before="3.0.0", after="3.1.0"),
        PackageChange(name="new", after="1"),
        PackageChange(name="old", before="2"),
    ),
    proof="in namespaces of its own",
    copy_bytes=3 << 20,
    tool="flask-migrate",
    pending=("0002 Each chart knows how many numbers it has",),
    command="flask db upgrade",
    changes=(Change(words="adds column chart.points INTEGER"), Change(words="adds 2 rows to chart", is_data=True)),
    rows=(Count(name="chart", before=1200, after=1202), Count(name="tag", before=None, after=0)),
    nulls=(Count(name="user.email", before=0, after=3),),
    is_migrating=True,
    health="/up healthy 3 times in a row",
    rollback=Way.CODE,
    rollback_words="code alone, rehearsed",
    times=Times(copy=0.2, migrate=1.0, boot=0.9, previous_boot=0.8),
)
HOLD, BACK = MIGRATION.times.hold, MIGRATION.times.way_back
PLAN = Plan(report=MIGRATION, title="Charts count", serving="4-def5678", notes=(("build", "14 packages"),))


def lines(plan: Plan) -> list[str]:
    """What is printed, without colours."""
    return click.unstyle(in_words(plan)).splitlines()


def test_a_migration_in_words() -> None:
    """Every fact of the report is told once, in its section."""
    assert lines(PLAN) == [
        f"would deploy 5-abc1234: a migration, requests would wait about {HOLD:.0f} s, nothing is lost",
        "  release     5-abc1234 Charts count, after 4-def5678",
        "              14 packages",
        "  packages    flask 3.0.0 becomes 3.1.0",
        "              adds new 1",
        "              removes old 2",
        "  runs        flask db upgrade: 0002 Each chart knows how many numbers it has",
        "  schema      adds column chart.points INTEGER",
        "  data        chart: 1,200 → 1,202 rows",
        "              tag: no → 0 rows",
        "              user.email: 0 → 3 NULLs",
        "  time        copied in 0.2 s, migrated in 1.0 s, booted in 0.9 s",
        f"              requests would wait for about {HOLD:.1f} s; the way back would take {BACK:.1f} s",
        "  rollback    to 4-def5678: code alone, rehearsed",
        "  rehearsed   on a copy of 3 MiB, in namespaces of its own: /up healthy 3 times in a row",
    ]


@pytest.mark.parametrize(
    ("plan", "headline"),
    [
        (
            replace(PLAN, report=Report(release="1-abc1234")),
            "would deploy 1-abc1234: the first deployment, with a new database",
        ),
        (
            replace(PLAN, report=replace(MIGRATION, is_migrating=False)),
            "would deploy 5-abc1234: code only, no request would wait, nothing is lost",
        ),
        (
            replace(PLAN, serving=""),
            "would deploy 5-abc1234: a migration, nothing serves now, nothing is lost",
        ),
        (
            replace(PLAN, report=replace(MIGRATION, changes=(LOSS,))),
            f"would deploy 5-abc1234: a migration, requests would wait about {HOLD:.0f} s, WHAT USERS MADE IS LOST",
        ),
        (
            replace(PLAN, step="rehearse", error=StepFailed("data-loss", "it would drop something")),
            "would be refused at its step rehearse: data-loss",
        ),
    ],
)
def test_the_headline_says_how_it_would_end(plan: Plan, headline: str) -> None:
    """The first line is all that a tired person needs."""
    assert lines(plan)[0] == headline


def test_what_is_lost_is_told_apart() -> None:
    """What users made has a section of its own, in red."""
    printed = in_words(replace(PLAN, report=replace(MIGRATION, changes=(LOSS,))))

    assert click.style(f"  lost        {LOSS.words}", fg="red") in printed


def test_a_refusal_for_a_setting_names_it() -> None:
    """What is known when preflight refused is told: which setting is missing."""
    plan = Plan(report=Report(release="5-abc1234", missing_settings=("KEY", "TOKEN")), step="preflight")

    assert "  settings    missing: KEY, TOKEN" in lines(plan)


def test_no_line_is_wider_than_a_hundred() -> None:
    """Long words of tools and long titles are wrapped, and hang below their section."""
    wide = replace(MIGRATION, changes=(Change(words=f"adds table t ({', '.join(f'column_{n}' for n in range(50))})"),))
    told = lines(replace(PLAN, report=wide, title="word " * 60))

    assert max(map(len, told)) <= 100
    assert " ".join(" ".join(told).split()).count("column_49") == 1


def test_many_tables_are_told_when_they_change() -> None:
    """Of more tables than fit only those are listed whose number of rows is another one."""
    rows = (*(Count(name=f"t{n}", before=n, after=n) for n in range(30)), Count(name="u", before=1, after=2))
    told = lines(replace(PLAN, report=replace(MIGRATION, rows=rows, nulls=())))

    assert "  data        u: 1 → 2 rows" in told
    assert "              30 other tables keep the number of their rows" in told


def test_json_has_the_report_as_a_deployment_keeps_it() -> None:
    """The report can be read back, and what follows from it is there as well."""
    plan = replace(
        PLAN, report=replace(MIGRATION, changes=(LOSS,)), step="rehearse", error=StepFailed("data-loss", "so")
    )
    facts = msgspec.json.decode(msgspec.json.encode(as_json("shop", plan)))

    assert msgspec.convert(facts["report"], Report) == plan.report
    assert facts["losses"] == [LOSS.words]
    assert (facts["app"], facts["would"], facts["step"]) == ("shop", "refuse", "rehearse")
    assert (facts["hold_seconds"], facts["way_back_seconds"]) == (round(HOLD, 3), round(BACK, 3))
    assert facts["error"]["reference"] == "data-loss"
    assert as_json("shop", replace(PLAN, serving=""))["hold_seconds"] == 0.0


def test_packages_are_compared_by_their_locks() -> None:
    """Versions come from the lines of a lock, hashes and comments aside; an address stands for a version."""
    before = pins("flask==3.0.0 \\\n    --hash=sha256:aa\n    # via -r requirements.txt\nold==2 --hash=sha256:bb\n")
    after = pins('Flask==3.1.0 ; python_version > "3" \\\n    --hash=sha256:cc\nnew[x] @ https://example.org/new.whl\n')

    assert (before, after) == (
        {"flask": "3.0.0", "old": "2"},
        {"flask": "3.1.0", "new": "https://example.org/new.whl"},
    )
    assert package_changes(before, after) == (
        PackageChange(name="flask", before="3.0.0", after="3.1.0"),
        PackageChange(name="new", after="https://example.org/new.whl"),
        PackageChange(name="old", before="2"),
    )


def test_what_a_power_cut_may_cost_has_a_section() -> None:
    """The sentence with the facts that it follows from, then what deserves a word; in JSON as it is kept."""
    found = Durability(
        mode="WAL",
        synchronous="FULL",
        sqlite="3.51.3",
        sentence="a power cut costs nothing that was acknowledged",
        warnings=("a warning",),
        advice=("an advice",),
    )
    plan = replace(PLAN, report=replace(MIGRATION, durability=found))
    told = lines(plan)
    first = told.index("  power cut   WAL journal, synchronous FULL, SQLite 3.51.3: a power cut costs nothing that was")

    assert told[first + 1 : first + 4] == [
        "                acknowledged",
        "              a warning",
        "              an advice",
    ]
    facts = msgspec.json.decode(msgspec.json.encode(as_json("shop", plan)))
    assert facts["report"]["durability"]["sentence"] == found.sentence
    assert msgspec.convert(facts["report"], Report) == plan.report


def test_a_summary_has_the_same_facts_as_lists() -> None:
    """No table, which a small screen cuts off; what would be refused says why, what serves, and what to type."""
    told = in_markdown("shop", PLAN)
    error = StepFailed("migration-failed", "no such column: a|b", hint="bulletproof plan", context=("Traceback", "```"))
    refused = in_markdown("shop", replace(PLAN, step="rehearse", error=error))

    assert told.startswith("### ✅ shop: would deploy 5-abc1234: a migration, requests would wait about")
    assert "**schema**\n\n- adds column chart.points INTEGER" in told
    assert "**data**\n\n- chart: 1,200 → 1,202 rows\n- tag: no → 0 rows" in told
    assert "**rollback**\n\n- to 4-def5678: code alone, rehearsed" in told
    assert told.endswith("4-def5678 serves; a plan changes nothing")
    assert "\n|" not in told
    assert refused.startswith("### ❌ shop: would be refused at its step rehearse: migration-failed")
    assert (
        "**migration-failed**: no such column: a\\|b\n\n````text\nTraceback\n```\n````\n\nNext: `bulletproof plan`"
        in refused
    )
    assert in_markdown("shop", replace(PLAN, report=replace(MIGRATION, changes=(LOSS,)))).startswith("### ⚠️ shop")
