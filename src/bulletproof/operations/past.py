"""A database with a past: which migration its schema is of, when its own note is missing, unknown or a lie."""

from __future__ import annotations

from msgspec.structs import replace

from bulletproof.domain.past import Replay, Stage, apart
from bulletproof.domain.report import revisions_of
from bulletproof.domain.schema import Schema
from bulletproof.errors import StepFailed
from bulletproof.operations.attempt import Attempt
from bulletproof.ports import SchemaState

_REPLAY_SECONDS = 600.0
_MOST_BEGINNINGS = 30
"""Each takes a second or two."""
_FITS_NOT = ("already exists", "duplicate column name", "no such table", "no such column", "no such index")
"""What SQLite says of a migration that was made for another schema."""


def settle_past(attempt: Attempt, live: Schema) -> tuple[SchemaState, str]:
    """The state to migrate from, and in words what was found; the state as it is when its note is to be believed.

    `live` is what the copy holds. Raises StepFailed `schema-unknown` when no single migration's schema equals it.
    """
    state = attempt.found.schema
    replay = _replay(attempt) if _is_doubtful(attempt) else None
    if replay is None:
        return state, ""
    noted = None if state.is_unnoted or state.unknown else replay.noted_as(state.current)
    matches = replay.matches(live)
    if noted is not None and (noted in matches or not _lacks(replay, noted, live)):
        return state, ""
    if noted is None and not (state.is_unnoted or state.unknown):
        return state, ""  # the replay did not come as far as what is noted, so nothing speaks against it
    if not replay.stages and state.is_unnoted and (found := _try_each_beginning(attempt)):
        return found
    if len(matches) != 1:
        raise _unknown(attempt, replay, live, matches)
    return _stamped(state, replay, *matches)


def explain_failure(attempt: Attempt, live: Schema, failure: StepFailed) -> tuple[SchemaState, str]:
    """The state to migrate from after all, when a migration failed because the database's note is a lie.

    Raises the failure otherwise, with what the database has otherwise than its note says.
    """
    state = attempt.found.schema
    is_told = any(words in line for line in failure.context for words in _FITS_NOT)
    if state.stamp or not is_told:
        raise failure
    if state.tool == "django":
        raise _with_advice(failure, (), "python manage.py migrate --fake APP NAME, once you are sure that it was done")
    replay = _replay(attempt)
    noted = replay.noted_as(state.current) if replay else None
    if replay is None or noted is None or not (changes := replay.apart(noted, live)):
        raise failure
    if len(matches := replay.matches(live)) == 1:
        return _stamped(state, replay, *matches)
    lines = (f"the database is not as {_words(noted, state)} makes it:", *(change.words for change in changes))
    raise _with_advice(failure, lines, f"{_program(attempt)} stamp --purge REVISION, once you are sure which it is at")


def _with_advice(failure: StepFailed, lines: tuple[str, ...], hint: str) -> StepFailed:
    return StepFailed(failure.reference, failure.message, context=(*failure.context, *lines), hint=hint)


def _stamped(state: SchemaState, replay: Replay, stage: Stage) -> tuple[SchemaState, str]:
    done = replay.done_at(stage)
    pending = tuple(words for words in state.known if revisions_of((words,))[0] not in done)
    return replace(state, stamp=stage.heads, pending=pending, unknown=(), is_unnoted=False), (
        f"{_what_is_noted(state)}; the schema is exactly that of {_words(stage, state)}, alone of all"
        f" {len(replay.stages)} migrations replayed, so that is noted first"
    )


def _try_each_beginning(attempt: Attempt) -> tuple[SchemaState, str] | None:
    """Where to begin when the first migration is not the one that made the tables: tried on the copy.

    The one beginning from which the migrations lead exactly to the tables of the models; None when it is not one.
    """
    state, host = attempt.found.schema, attempt.host
    models = host.migrator.make_all(attempt.manifest, attempt.settings)
    revisions = revisions_of(state.known)
    if models is None or len(revisions) > _MOST_BEGINNINGS:
        return None
    goal = host.rehearsal.make(attempt.number, attempt.manifest, models, _REPLAY_SECONDS)
    beginnings = [done for done in range(len(revisions) + 1) if _leads_to(attempt, goal, revisions[:done][-1:])]
    host.rehearsal.rewind(attempt.number, _REPLAY_SECONDS)
    if len(beginnings) != 1:
        return None
    (done,) = beginnings
    where = f"after {state.known[done - 1]}" if done else f"before {state.known[0]}"
    found = replace(state, stamp=revisions[:done][-1:], pending=state.known[done:], is_unnoted=False)
    return found, (
        f"{_what_is_noted(state)}, and the first migration is not the one that made them; of {len(revisions) + 1}"
        f" beginnings tried on the copy only {where} leads exactly to the tables of the models"
    )


def _leads_to(attempt: Attempt, goal: Schema, stamp: tuple[str, ...]) -> bool:
    """Whether the migrations that come after this one bring the copy to that schema."""
    rehearsal = attempt.host.rehearsal
    command = attempt.host.migrator.upgrade(attempt.manifest, attempt.settings, stamp)
    rehearsal.rewind(attempt.number, _REPLAY_SECONDS)
    if command is None:
        return False
    try:
        rehearsal.run(attempt.number, attempt.manifest, command, _REPLAY_SECONDS)
    except StepFailed:
        return False
    return not apart(goal, rehearsal.look(attempt.number))


def _is_doubtful(attempt: Attempt) -> bool:
    """Whether the database's note is missing, or nobody has seen yet whether it is true.

    Once an app was deployed, its note is ours: one that the release does not know is of a later release, and a schema
    that looks like an earlier one's may have been filled by a migration that changed rows alone.
    """
    state = attempt.found.schema
    return state.is_unnoted or (attempt.deployment.previous is None and bool(state.current or state.unknown))


def _replay(attempt: Attempt) -> Replay | None:
    """All migrations of the release on an empty database; None when its tool cannot do that."""
    command = attempt.host.migrator.replay(attempt.manifest, attempt.settings)
    if command is None:
        return None
    return attempt.host.rehearsal.replay(attempt.number, attempt.manifest, command, _REPLAY_SECONDS)


def _lacks(replay: Replay, noted: Stage, live: Schema) -> bool:
    """Whether the database lacks something that the noted migration made; what it has besides is not the note's lie."""
    return any(not change.words.startswith("adds ") for change in replay.apart(noted, live))


def _unknown(attempt: Attempt, replay: Replay, live: Schema, matches: tuple[Stage, ...]) -> StepFailed:
    state = attempt.found.schema
    stamp = f"{_program(attempt)} stamp --purge"
    if matches:
        several = " and ".join(_words(stage, state) for stage in matches)
        return StepFailed(
            "schema-unknown",
            f"{_what_is_noted(state)}, and its schema is that of several migrations: {several}",
            hint=f"{stamp} {matches[0].heads[0]}, or another of them: which changes of data had been made decides",
        )
    nearest = replay.nearest(live)
    if nearest is None:
        return StepFailed(
            "schema-unknown",
            f"{_what_is_noted(state)}, and the first migration does not work on an empty database"
            f" ({replay.trouble}), so it is not the one that made the tables",
            hint=f"write the migration that makes them, with down_revision = None, or: {stamp} REVISION",
        )
    context = tuple(change.words for change in replay.apart(nearest, live))
    until = f"; the one after {replay.stages[-1].revision} fails: {replay.trouble}" if replay.trouble else ""
    return StepFailed(
        "schema-unknown",
        f"{_what_is_noted(state)}, and its schema is of none of the {len(replay.stages)} migrations replayed{until};"
        f" nearest is {_words(nearest, state)}, from which the database is apart:",
        context=context,
        hint=f"mend that, or if it does not matter: {stamp} {nearest.heads[0]}, then: bulletproof deploy",
    )


def _what_is_noted(state: SchemaState) -> str:
    if state.is_unnoted:
        return "the database has tables and no note of the migrations that made them"
    if state.unknown:
        return f"the database notes {', '.join(state.unknown)}, which no migration of the release is called"
    return f"the database notes {', '.join(state.current)}, and is not as that makes it"


def _words(stage: Stage, state: SchemaState) -> str:
    """A stage as its tool would call it."""
    return next((words for words in state.known if revisions_of((words,)) == (stage.revision,)), stage.revision)


def _program(attempt: Attempt) -> str:
    """What a person types, at the place that is wrong: in the project's folder, or for what is live already."""
    program = "flask db" if attempt.found.schema.tool == "flask-migrate" else "alembic"
    return program if attempt.deployment.previous is None else f"bulletproof run -- {program}"
