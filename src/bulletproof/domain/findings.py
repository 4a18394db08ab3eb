"""What each check that is built in looks at, why that matters, and what to do; written for two in the morning."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import msgspec

from bulletproof.domain.check import Severity


class About(msgspec.Struct, frozen=True, kw_only=True):
    """A check, told to a person."""

    looks_at: str
    """In a few words, for a list."""
    why: str
    """What it means for users and data when this check complains."""
    to_do: tuple[str, ...]
    """What helps, the most likely first."""
    severity: Severity = Severity.REQUIRED
    """What it means when it fails, where the finding itself does not say otherwise."""


_WANTED = Severity.WANTED
_COLUMNS = 100
"""A page is read on a terminal as well."""

FINDINGS: Mapping[str, About] = {
    "service": About(
        looks_at="supervisor, app, proxy and relay run, and none of them crashes",
        why=(
            "Without the app or the proxy nobody is served. Without the supervisor the app serves on, but nothing"
            " starts it again when it crashes. The relay is needed for the next migration. Crashes alone are a"
            " warning: the app was started again, and users may have seen errors."
        ),
        to_do=(
            "`bulletproof logs` tells why it crashed; `bulletproof logs -n 200` tells more.",
            (
                "`bulletproof start` when the supervisor does not run. After a reboot a server does that by itself; a"
                " folder on a machine of yours waits for it."
            ),
            "`bulletproof restart` when the proxy, the relay or the app does not run. It drops no request.",
            "`bulletproof rollback` when it crashes since the last deployment (`bulletproof releases`).",
        ),
    ),
    "processes": About(
        looks_at="one master, and as many workers as configured",
        why=(
            "Too few workers are slow under load; none at all is an outage. A worker that ends again and again is"
            " counted here in the moments in which it is missing."
        ),
        to_do=(
            (
                "`bulletproof logs` tells why a worker ended: `SIGKILL` is often a lack of memory (`dmesg | grep -i"
                " oom`)."
            ),
            "`bulletproof restart` starts all of them anew, without dropping a request.",
        ),
    ),
    "memory": About(
        looks_at="the memory of each process, and what the machine has left",
        why=(
            "When memory runs out, the kernel kills the largest process, which is often a worker in the middle of a"
            " request, or the database's writer. And a deployment needs room for a second set of workers beside the"
            " first: below `free_memory_mib` of `[require]` the next one is refused."
        ),
        to_do=(
            "`bulletproof restart` gives back what a leak took, without dropping a request.",
            "`ps -eo rss,pid,args --sort -rss | head` tells who has the rest.",
            "Fewer `workers` under `[app]`, or `memory_mib` under `[check]` when the app really needs more.",
        ),
        severity=_WANTED,
    ),
    "response": About(
        looks_at="the health checks, on the app's own socket and through the proxy",
        why=(
            "This is what users see. It is what `uptime` counts: critical is down. An answer that is right and slower"
            " than `latency_ms` of `[check]` is a warning."
        ),
        to_do=(
            "`bulletproof logs` when it answers 5xx, or not at all.",
            "When its socket is healthy and the proxy is not: `bulletproof restart`.",
            (
                "When it does not answer in time: it waits for something. `bulletproof check --only database` tells"
                " whether that is the database; a service that it calls is another candidate."
            ),
            "`bulletproof rollback` when it began with a deployment (`bulletproof history`).",
        ),
    ),
    "public": About(
        looks_at="maintenance, and certificates that browsers trust",
        why=(
            "In maintenance people get a page instead of the app. Without a certificate that browsers trust they get a"
            " warning of their browser, or nothing."
        ),
        to_do=(
            "`bulletproof maintenance off` opens the app again.",
            "`bulletproof logs proxy` tells what the certificate authority said: mostly DNS does not lead here yet.",
            "Port 80 must be open to everybody, since the authority asks for the domain there.",
        ),
        severity=_WANTED,
    ),
    "background": About(
        looks_at="workers and timers",
        why="Mail is not sent, jobs pile up. A timer is told when its last run failed. Users may not notice for days.",
        to_do=(
            "`bulletproof logs NAME` tells why it ended.",
            "`bulletproof restart` starts those that were given up.",
        ),
    ),
    "errors": About(
        looks_at="the share of 5xx in the last requests, and new errors in the app's log",
        why=(
            "Some users got an error although the app as a whole is up. New errors in the log are told, and are an"
            " alarm only when requests failed: more than `errors_percent` of `[check]` of the last thousand."
        ),
        to_do=(
            "`bulletproof logs` tells the errors, `bulletproof logs --access` the requests.",
            "`bulletproof history` tells since when, and what was deployed before.",
            "`bulletproof rollback` when it began with a deployment.",
        ),
        severity=_WANTED,
    ),
    "release": About(
        looks_at="every file of every package is there, and as long as it was installed",
        why=(
            "A file that is missing is not missed before it is imported: the app runs until its next restart, and"
            " then does not start. Somebody, a disk or a clean-up has changed what should never change."
        ),
        to_do=(
            "Leave what runs alone until it is mended: it still has in memory what is missing on the disk.",
            "`bulletproof doctor --fix` builds the release anew beside the damaged one, and exchanges them.",
            "`dmesg | tail` and `smartctl -a` if the disk may be failing.",
        ),
    ),
    "previous": About(
        looks_at="the release that `rollback` would make live is there and whole",
        why=(
            "When the live release turns out to be bad, this is the way back. There is none in the first days of an"
            " app, which is no alarm."
        ),
        to_do=("Deploy once more when you can: that makes the live release the way back.",),
        severity=_WANTED,
    ),
    "database-file": About(
        looks_at="who may read the database, and a `-wal` that grows without end",
        why=(
            "A database that everybody on the machine may read is everybody's. A `-wal` that grows makes reading slow"
            " and fills the disk: some reader never ends, so SQLite cannot empty it, or very much was written at once."
        ),
        to_do=(
            "`chmod o= FILE` takes it from all but its owner and group.",
            (
                "`bulletproof doctor` tells who has it open; `--fix` restarts the app, which ends its own readers, and"
                " empties it."
            ),
            "`wal_mib` under `[check]` when the app really writes that much between two looks.",
        ),
    ),
    "database": About(
        looks_at="it can be read as a database, its tables, its migration",
        why=(
            "An app whose database cannot be read answers errors. One that is locked for long waits for a writer that"
            " does not come to its end."
        ),
        to_do=(
            "Locked: `fuser -v FILE` tells who has it open; end whoever should not.",
            (
                "Damaged: stop (`bulletproof stop`), keep a copy of the file with its `-wal`, and then `bulletproof"
                " backup list` and `bulletproof backup restore NAME`."
            ),
            "`ls -l` of its folder, when it cannot be opened: it must belong to the app's user.",
        ),
    ),
    "durability": About(
        looks_at="what a power cut may cost",
        why=(
            "Some settings of SQLite are quick, and damage the database when the power fails. What counts is what the"
            " release did in its rehearsal, not what is written in the code."
        ),
        to_do=(
            "`bulletproof plan` tells the statement that does it, and what helps.",
            '`database.journal = "wal"` under `[database]`, when several workers have no WAL.',
        ),
        severity=_WANTED,
    ),
    "sqlite": About(
        looks_at="the version of the SQLite library that the app uses",
        why=(
            "SQLite 3.52.0 was withdrawn by its authors. Versions up to 3.51.2 can, very rarely, damage a database in"
            " WAL mode when two connections write at the same instant; the reports name apps that also use"
            " `mmap_size`."
        ),
        to_do=(
            "Set `PRAGMA mmap_size = 0` in the app.",
            "Install a newer Python or SQLite: `apt upgrade`, or a Python of uv's, which brings its own.",
        ),
        severity=_WANTED,
    ),
    "stray-databases": About(
        looks_at="other database files with tables, in the data and in the release's source",
        why=(
            "The app uses one database. Another file with tables is the one that it used before, or the one that it"
            " uses by mistake: then users' data go where no backup is made, and those in a release are gone with it."
        ),
        to_do=(
            (
                "Look into it: `sqlite3 -readonly FILE .tables`. If it is current, the app has a path written down"
                " in its code: [`links`](../configuration.md) under `[database]`."
            ),
            'Move it away, if it is old. If the app needs it, `skip = ["stray-databases"]` under `[check]`.',
        ),
        severity=_WANTED,
    ),
    "settings": About(
        looks_at="nobody else may read the settings; none of the live release's is gone",
        why="Settings are secrets. And a setting that was unset since the last deployment is missed by the next one.",
        to_do=(
            "`chmod 600 FILE`, and new secrets, if others could log in to this machine meanwhile.",
            "`bulletproof env set NAME=VALUE`, or nothing, when the next release does not need it.",
        ),
    ),
    "backups": About(
        looks_at="the newest is proven and not old; all can be read",
        why="Tomorrow's mistake can only be undone with a backup. One that nobody tried to restore is a hope.",
        to_do=(
            "`bulletproof logs backup` tells why none was made by the clock.",
            "`bulletproof backup create` makes and proves one now.",
            "`bulletproof backup verify NAME` tries one again.",
        ),
        severity=_WANTED,
    ),
    "disk": About(
        looks_at="free bytes and inodes",
        why="On a full disk no write is taken: users get errors, and deployments and backups are refused.",
        to_do=(
            "`bulletproof doctor` tells what takes how much; `--fix` frees what can be made again, and no data.",
            "`du -xh / --max-depth 3 | sort -h | tail -30` tells what else takes the room.",
            "`bulletproof backup prune` removes the backups that `[keep]` does not keep.",
            "`df -i` when it is inodes: often many small files of sessions or caches.",
        ),
    ),
    "disk-trend": About(
        looks_at="for how many days the disk lasts, as it was filled in the last two weeks",
        why=(
            "A full disk comes at night. This tells some days before, if the checks by the clock have run for three"
            " days."
        ),
        to_do=("As for [disk](disk.md), by daylight.",),
        severity=_WANTED,
    ),
    "clock": About(
        looks_at="whether the kernel says that the machine's clock is kept by a time server",
        why=(
            "A clock that runs away makes log-ins fail (one-time codes, signed cookies), certificates invalid and"
            " logs useless, and the order of backups a guess."
        ),
        to_do=(
            "`timedatectl set-ntp true`, or `apt install chrony`; `timedatectl` tells how it stands.",
            ('`skip = ["clock"]` under `[check]` where the machine below keeps the time, as some containers have it.'),
        ),
        severity=_WANTED,
    ),
    "reboot": About(
        looks_at="whether the system waits for a reboot",
        why="A new kernel or library is installed and not in use: a hole that is known stays open.",
        to_do=(
            "Reboot at a quiet hour; the app does not serve meanwhile. Afterwards `bulletproof status`.",
            "`cat /run/reboot-required.pkgs` tells for what.",
        ),
        severity=_WANTED,
    ),
    "libraries": About(
        looks_at="whether the app still runs libraries of the system that were replaced",
        why=(
            "After an upgrade of OpenSSL, say, the processes that ran before use the old one until they are started"
            " anew."
        ),
        to_do=("`bulletproof restart`, which drops no request.",),
        severity=_WANTED,
    ),
    "deployments": About(
        looks_at="one that was left half-done",
        why=(
            "A deployment was killed, and nobody has finished or undone it yet. The supervisor does it within"
            " seconds; if it is still so, something keeps it from it. The app serves meanwhile, and no other"
            " deployment is let in."
        ),
        to_do=(
            "`bulletproof recover` does it now, and tells what keeps it from it.",
            "`recover.log` beside the other logs tells what was tried.",
        ),
    ),
}
"""All of them by their names, in the order in which they are told."""


def page_of(name: str) -> str:
    """The page of a finding, in Markdown."""
    return page(name, FINDINGS[name], f"`bulletproof check --only {name}` looks again.")


def page(name: str, about: About, again: str, *, mended: str = "") -> str:
    """A page, in Markdown; `again` is its last line, `mended` what is done without a person."""
    steps = (_wrapped(f"{number}. {step}", "   ") for number, step in enumerate(about.to_do, 1))
    lines = (
        f"# {name}\n",
        _wrapped(f"Looks at: {about.looks_at}.\n"),
        f"\n{_wrapped(_URGENCY[about.severity])}\n",
        f"## Why it matters\n\n{_wrapped(about.why)}\n",
        *((f"## What `bulletproof doctor --fix` does\n\n{_wrapped(mended)}\n",) if mended else ()),
        "## What else you can do\n" if mended else "## What to do\n",
        *steps,
        f"\n{again}\n",
    )
    return "\n".join(lines)


_URGENCY = {
    Severity.REQUIRED: "Critical, if it does not say otherwise: users or their data are concerned now.",
    Severity.WANTED: "A warning, if it does not say otherwise: the app works, and this can wait for the morning.",
}


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, _COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def index() -> str:
    """The list of all pages, in Markdown."""
    head = "What `bulletproof check` looks at; `bulletproof check --explain NAME` prints a page."
    rows = [f"| [{name}]({name}.md) | {one.looks_at} | {one.severity.state.word} |" for name, one in FINDINGS.items()]
    return "\n".join(("# Findings", "", head, "", "| name | looks at | when it fails |", "|---|---|---|", *rows, ""))
