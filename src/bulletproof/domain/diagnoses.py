"""What `doctor` looks for, why that matters, what `--fix` does about it, and what only a person can do."""

from __future__ import annotations

from collections.abc import Mapping

from bulletproof.domain.check import Severity
from bulletproof.domain.findings import About, page


class Ailment(About, frozen=True, kw_only=True):
    """Something that can be wrong with an app or its host."""

    mended_by: str = ""
    """What `doctor --fix` does; empty where only a person can do something."""


_WANTED = Severity.WANTED

DIAGNOSES: Mapping[str, Ailment] = {
    "half-done": Ailment(
        looks_at="a deployment that was left half-done",
        why=(
            "Its deployer was killed, and the supervisor, which takes care of that within seconds, was killed"
            " as well or"
            " is kept from it. The app may serve meanwhile; no other deployment is let in."
        ),
        mended_by="It is undone, or finished when it was committed already, as `bulletproof recover` does.",
        to_do=(
            "`bulletproof recover` does the same at once, and tells what keeps it from it: mostly a full disk.",
            "`recover.log`, in the folder of the other logs, tells what was tried before.",
        ),
    ),
    "service": Ailment(
        looks_at="an app, a proxy or a supervisor that does not run, and why it does not start",
        why="Nobody is served, or nothing starts the app again when it crashes.",
        mended_by=(
            "The live release is started, or restarted where it runs, after it has booted on a copy of the data. What"
            " does not boot there is not made live, and its reason is told."
        ),
        to_do=(
            "The reason stands in the log of the app: `bulletproof logs -n 200`.",
            "`bulletproof rollback` when it began with the last deployment.",
            "A setting that is missing: `bulletproof env set NAME=VALUE`.",
        ),
    ),
    "packages": Ailment(
        looks_at="a virtual environment in which a file is missing or altered, by the digest of each file",
        why=(
            "What is missing is not missed before it is imported: the app runs until its next restart, and"
            " then does not"
            " start. `check` compares lengths; this reads every byte."
        ),
        mended_by=(
            "The release is built anew beside itself, from its own source and lock, and exchanged with the damaged one"
            " in one instant. The live one gets new processes then, without a dropped request."
        ),
        to_do=(
            "`dmesg | tail` and `smartctl -a` if nobody has changed it: the disk may be failing.",
            "`bulletproof deploy` when it cannot be built any more, for example since a package was withdrawn.",
        ),
    ),
    "interpreter": Ailment(
        looks_at="the Python that a release was built with: there, and still of that version",
        why=(
            "A virtual environment uses the machine's Python. When that is removed, or becomes another minor version,"
            " packages are not found any more, or do not fit it. Processes that run notice it with their next start."
        ),
        mended_by="As for damaged packages: the release is built anew with the Python that there is, and exchanged.",
        to_do=("`apt install python3`, or another Python, when none is left that the app can run with.",),
    ),
    "permissions": Ailment(
        looks_at="owners and modes of data, settings, logs, code and state",
        why=(
            "The app cannot write its data when they belong to somebody else, which is the most usual reason for"
            " `readonly database`: root has opened them with another tool. And settings that others can read are"
            " everybody's secrets."
        ),
        mended_by="Owner, group and mode become what they are to be; nothing is opened that was closed on purpose.",
        to_do=("New secrets (`bulletproof env set`), if others could log in to this machine meanwhile.",),
    ),
    "database": Ailment(
        looks_at="the database, read through: whole, there, and reachable",
        why="A damaged page is noticed when somebody asks for it. A backup that was made since may have it as well.",
        to_do=(
            "Damaged: `bulletproof stop`, since each write can make it worse.",
            (
                "Keep the damaged file and its `-wal`: `cp -a FILE FILE-wal SOMEWHERE`. `sqlite3 FILE .recover` gets"
                " the most out of it."
            ),
            (
                "`bulletproof backup list`, then `bulletproof backup restore NAME --preview`: it tells what would"
                " be missing. Without `--preview` it restores, and keeps what was there."
            ),
            "`dmesg | tail`, `smartctl -a`: disks rarely fail only once.",
        ),
    ),
    "migrations": Ailment(
        looks_at="whether the database is where the live release's migrations end",
        why=(
            "A revision that the release does not know, tables that no migration is noted for, or several ends of the"
            " migrations: the next deployment is refused, or the app asks for columns that are not there. Never `stamp`"
            " a database to silence this: then it says what is not so."
        ),
        to_do=(
            "Unknown revision: deploy the release that knows it, or restore the backup from before.",
            (
                "Not yet applied: `bulletproof plan` tells what they would do, `bulletproof restart` applies them,"
                " rehearsed."
            ),
            (
                "Tables without a note: `bulletproof plan`. A schema that is exactly that of a revision is noted"
                " by itself."
            ),
            "Several ends: merge them where you develop, with the command that stands there, and deploy.",
        ),
    ),
    "stray-databases": Ailment(
        looks_at="other databases in the data and in the release, who has them open, and when they were written last",
        why=(
            "One that was written lately is used by mistake: what users enter goes where no backup is made. One that is"
            " old is what the app used before, and may be taken for the real one some day."
        ),
        to_do=(
            "Written lately: the app has a path in its code. `links` under `[database]` leads it to the real one.",
            "Old: move it out of the data, and do not delete it: it may have what is nowhere else.",
        ),
        severity=_WANTED,
    ),
    "misplaced-database": Ailment(
        looks_at="databases that the running app has open outside its data",
        why=(
            "No backup has it, no rehearsal copies it, no migration is undone in it, and a server's sandbox refuses it."
        ),
        to_do=(
            "`links` under `[database]` in bulletproof.toml, with that path as it stands in the code; then deploy.",
            "Or let the app read the setting, as `DATABASE_URL`, that it is given.",
        ),
    ),
    "database-setting": Ailment(
        looks_at="a DATABASE_URL in the settings that leads elsewhere than to the data, or nowhere",
        why=(
            "The app is given the right one instead, so it works. Whoever reads the settings, or a script that uses"
            " them, works with another file, or makes an empty one."
        ),
        mended_by="It is unset, by a deployment that drops no request; the app is given the right one as before.",
        to_do=("Look into that file before, if it is there: `sqlite3 -readonly FILE .tables`.",),
        severity=_WANTED,
    ),
    "backups": Ailment(
        looks_at="backups that are missing, old, damaged, or not proven",
        why="Tomorrow's mistake can only be undone with a backup. One that nobody tried to restore is a hope.",
        mended_by="One is made now, and proven by restoring it for a trial and booting the release on it.",
        to_do=(
            "`bulletproof logs backup` tells why none was made by the clock.",
            "A damaged one is yours to remove: `bulletproof backup list` names it.",
        ),
        severity=_WANTED,
    ),
    "logs": Ailment(
        looks_at="logs that grow and that nothing rotates",
        why="They fill the disk, and then no write is taken.",
        mended_by="Its end is kept beside it as `.1`, and it is emptied; whoever writes it goes on.",
        to_do=("What it says again and again is worth mending: `sort FILE | uniq -c | sort -n | tail`.",),
        severity=_WANTED,
    ),
    "disk": Ailment(
        looks_at="a disk that is nearly full, and what of ours takes how much of it",
        why="On a full disk no write is taken: users get errors, and deployments and backups are refused.",
        mended_by=(
            "Only what can be made again is removed: releases that `[keep]` does not keep, and the cache of builds."
            " Backups, snapshots, set-aside data and logs are yours; each is told with its size."
        ),
        to_do=(
            "`du -xh / --max-depth 3 | sort -h | tail -30` tells what else takes the room.",
            "`bulletproof backup prune` removes the backups that `[keep]` does not keep; it works on a full disk too.",
            "`df -i` when it is inodes: often many small files of sessions or caches.",
        ),
    ),
    "proxy": Ailment(
        looks_at="a Caddyfile that was edited by hand",
        why=(
            "The proxy works by it from its next start on, and nobody has rehearsed that; the next deployment takes it"
            " away without a word."
        ),
        mended_by="It is written again as `[proxy]` says, and the proxy reads it without a cut connection.",
        to_do=("What is missing in it belongs into `[proxy]` of bulletproof.toml, which a deployment tries first.",),
        severity=_WANTED,
    ),
    "units": Ailment(
        looks_at="units of systemd that are not what would be written, and files that are laid over them",
        why=(
            "A limit or a sandbox that is not what was tried is in force from the next start on. An upgrade of"
            " Bulletproof may also write them otherwise than the last deployment did."
        ),
        mended_by="They are written as they would be by a deployment, systemd reads them, and the app is restarted.",
        to_do=("`systemctl revert UNIT` takes away what `systemctl edit` has laid over it.",),
        severity=_WANTED,
    ),
    "wal": Ailment(
        looks_at="a `-wal` beside the database that takes more room than it should, and who may be why",
        why=(
            "SQLite writes there first, and empties it when nobody reads from it. A reader that never ends lets it grow"
            " until the disk is full, and makes every page slower. After one very large write it only takes room."
        ),
        mended_by=(
            "The app is restarted, which ends its own readers; then what the `-wal` holds is moved into the database,"
            " and it is emptied. No data change."
        ),
        to_do=(
            "Never delete a `-wal`: what was written last is in it, and nowhere else.",
            "A shell, a notebook or a script that has the database open is named: end it, then `doctor --fix`.",
            "`wal_mib` under `[check]` when the app really writes that much.",
        ),
        severity=_WANTED,
    ),
    "durability": Ailment(
        looks_at="a database that is not in the journal mode that the configuration asks for",
        why="Several workers without WAL wait for each other; and what a power cut costs is not what you decided.",
        to_do=(
            "`sqlite3 FILE 'PRAGMA journal_mode = wal'` at a quiet moment; it stays with the file.",
            "An app that sets another mode when it boots has to be changed: `bulletproof plan` names the statement.",
        ),
        severity=_WANTED,
    ),
    "debug": Ailment(
        looks_at="FLASK_DEBUG, FLASK_ENV=development, DEBUG and DJANGO_DEBUG in the settings",
        why=("In debug mode an error shows strangers code, settings and secrets; some let them run code of their own."),
        mended_by="Flask's are unset. What others mean without a value only your code tells, so they are left to you.",
        to_do=("`bulletproof env set DEBUG=False`, in the words that your code understands.",),
    ),
    "secret-key": Ailment(
        looks_at="secrets in the settings that are short, or known from templates",
        why=(
            "Whoever knows it logs in as anybody: sessions, links to reset a password and API tokens are signed"
            " with it."
        ),
        to_do=(
            (
                "`bulletproof env set SECRET_KEY=-` reads it from standard input; `python3 -c 'import secrets;"
                " print(secrets.token_hex(32))'` makes one. Everybody has to log in again, which is why it is left to"
                " you."
            ),
        ),
    ),
    "exposed-ports": Ailment(
        looks_at="the app, or a database on this machine, that listens to the whole network",
        why=(
            "The proxy is the one door. What listens beside it is asked without HTTPS, without limits and"
            " without a log;"
            " databases such as Redis are found by robots within hours."
        ),
        to_do=(
            "The app: it opens a port of its own in its code; bind it to 127.0.0.1, and deploy.",
            (
                "A database: `bind 127.0.0.1` (Redis), `listen_addresses = 'localhost'` (PostgreSQL), `bind-address ="
                " 127.0.0.1` (MySQL), and restart it."
            ),
        ),
    ),
    "vulnerabilities": Ailment(
        looks_at="packages of the live release with known vulnerabilities, by OSV; only with `--online`",
        why=(
            "A hole that is known is tried by everybody. Without `--online` nothing is sent anywhere, and nothing"
            " known."
        ),
        to_do=(
            "Raise the package in the project's list, lock it anew, `bulletproof plan`, `bulletproof deploy`.",
            "Read it first: many need a feature that you do not use. `https://osv.dev/vulnerability/ID`",
        ),
        severity=_WANTED,
    ),
    "outdated": Ailment(
        looks_at="packages of the live release of which their index has newer versions; only with `--online`",
        why=(
            "Nothing is broken. But holes are repaired in new versions only, and ten small steps are easier than one"
            " large one."
        ),
        to_do=(
            "Not tonight: raise them where you develop, run your tests, lock anew, `bulletproof plan`.",
            "First those that `vulnerabilities` names. A change of the first number mostly breaks something.",
        ),
        severity=_WANTED,
    ),
}
"""All of them by their names, in the order in which they are told."""


def page_of(name: str) -> str:
    """The page of a diagnosis, in Markdown."""
    about = DIAGNOSES[name]
    return page(name, about, f"`bulletproof doctor --only {name}` looks again.", mended=about.mended_by)


def index() -> str:
    """The list of all pages, in Markdown."""
    head = (
        "What `bulletproof doctor` looks for, besides all that [`check`](../findings/index.md) looks at; `bulletproof"
        " doctor --explain NAME` prints a page."
    )
    rows = [
        f"| [{name}]({name}.md) | {one.looks_at} | {'yes' if one.mended_by else 'a person'} |"
        for name, one in DIAGNOSES.items()
    ]
    return "\n".join(("# Diagnoses", "", head, "", "| name | looks for | `--fix` |", "|---|---|---|", *rows, ""))
