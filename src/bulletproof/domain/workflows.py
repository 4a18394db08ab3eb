"""Workflows for GitHub Actions, written from what is known of a project. They use no action of anybody's.

What GitHub's own checkout would do is a few lines of git, whose token is in no file and in no process list; so there is
nothing to pin, and the same lines run on every runner. Every value reaches a script by its environment, never as text.
"""

from __future__ import annotations

import hashlib
import json
import re
import textwrap

import msgspec

FOLDER = ".github/workflows"
KEY_SECRET = "BULLETPROOF_SSH_KEY"  # noqa: S105  a name
HOSTS_SECRET = "BULLETPROOF_KNOWN_HOSTS"  # noqa: S105  a name
_TOLD = "# Without a shell around it, so that it is told when the job is cancelled, and says what becomes of it."
_TOKEN = {"TOKEN": "${{ github.token }}"}
_NO_TEXT = frozenset({"true", "false", "null", "yes", "no", "on", "off"})
"""Words that YAML takes for something else."""
_PAIR = re.compile(r"\\u(?:d[89ab][0-9a-f]{2})\\u(?:d[c-f][0-9a-f]{2})")
"""How JSON writes what is beyond 16 bits, and YAML does not."""
_MARK = "# Written by `bulletproof ci github`, which writes it anew unless somebody has changed it: "
_MARKED = re.compile(re.escape(_MARK) + r"([0-9a-f]{16})\n")


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the workflows are about."""

    app: str
    host: str
    """As `--to` takes it."""
    branch: str
    package: str
    """What pip installs: this Bulletproof."""
    version: str
    folder: str = ""
    """The project's folder in the repository, empty for the repository's own."""
    tests: tuple[str, ...] = ()
    """The lines of a shell script that prepare and run the tests; none when there are no tests."""

    @property
    def environment(self) -> str:
        """The environment of GitHub that has the secret of the key that may deploy."""
        return self.host

    @property
    def looking(self) -> str:
        """The one that has the secret of the key that may plan and look, and that needs nobody's approval."""
        return f"{self.host}-plan"


def workflows(wishes: Wishes) -> dict[str, str]:
    """The text of each file by its name."""
    texts = {
        "bulletproof-pull-request.yml": _pull_request(wishes),
        "bulletproof-deploy.yml": _deploy(wishes),
        "bulletproof-rollback.yml": _rollback(wishes),
        "bulletproof-check.yml": _check(wishes),
    }
    return {name: f"{_MARK}{_digest(text)}\n{text}" for name, text in texts.items()}


def is_unchanged(text: str) -> bool:
    """Whether a file is as some version of us wrote it, and no person changed it since."""
    found = _MARKED.match(text)
    return found is not None and found[1] == _digest(text[found.end() :])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _pull_request(wishes: Wishes) -> str:
    plan = _job(
        wishes,
        "plan",
        (
            *("# A branch of a fork has no secrets, so nothing of it reaches the server.",),
            *("if: github.event.pull_request.head.repo.full_name == github.repository", "timeout-minutes: 30"),
            f"environment: {scalar(wishes.looking)}",
        ),
        _checkout(wishes, is_whole=True),
        _install(wishes),
        _connect(wishes),
        _step("Rehearse on a copy of the live data", 'bulletproof plan --to "$HOST"', HOST=scalar(wishes.host)),
    )
    head = """
        name: Pull request
        on:
          pull_request:
        permissions: {}
        concurrency:
          group: bulletproof-pull-request-${{ github.ref }}
          cancel-in-progress: true
        jobs:
    """
    return _joined(head, *_test_job(wishes), plan)


def _deploy(wishes: Wishes) -> str:
    has_tests = bool(wishes.tests)
    script = f"""
        {_TOLD}
        if [ "$MAY_BE_OLDER" = true ]; then
          exec bulletproof deploy --to "$HOST" --wait 1800 --allow-older
        fi
        exec bulletproof deploy --to "$HOST" --wait 1800
    """
    deploy = _job(
        wishes,
        "deploy",
        (
            *(("needs: test",) if has_tests else ()),
            *("timeout-minutes: 60", f"environment: {scalar(wishes.environment)}"),
            *_one_at_a_time(f"bulletproof-{wishes.app}-{wishes.environment}"),
        ),
        _checkout(wishes, is_whole=True),
        _install(wishes),
        _connect(wishes),
        _step("Deploy", script, HOST=scalar(wishes.host), MAY_BE_OLDER="${{ inputs.may-be-older }}"),
        _serves(wishes),
    )
    head = f"""
        name: Deploy
        on:
          push:
            branches: [{scalar(wishes.branch.replace("+", chr(92) + "+"))}]
          workflow_dispatch:
            inputs:
              may-be-older:
                description: "Deploy it although what is live came after it"
                type: boolean
                default: false
        permissions: {{}}
        jobs:
    """
    return _joined(head, *_test_job(wishes), deploy)


def _rollback(wishes: Wishes) -> str:
    script = f"""
        {_TOLD}
        if [ -n "$RELEASE" ]; then
          exec bulletproof rollback --to "$HOST" --wait 1800 -- "$RELEASE"
        fi
        exec bulletproof rollback --to "$HOST" --wait 1800
    """
    job = _job(
        wishes,
        "rollback",
        (
            *("timeout-minutes: 60", f"environment: {scalar(wishes.environment)}"),
            *_one_at_a_time("bulletproof-rollback"),
        ),
        _checkout(wishes, is_whole=False),
        _install(wishes),
        _connect(wishes),
        _step("Roll back", script, HOST=scalar(wishes.host), RELEASE="${{ inputs.release }}"),
        _serves(wishes),
    )
    head = """
        name: Roll back
        on:
          workflow_dispatch:
            inputs:
              release:
                description: "Release, such as 17-3f2c9a1 or 17; empty for the one before"
                required: false
                type: string
        permissions: {}
        jobs:
    """
    return _joined(head, job)


def _check(wishes: Wishes) -> str:
    script = """
        code=0
        bulletproof check --to "$HOST" >"$RUNNER_TEMP/check.txt" || code=$?
        cat "$RUNNER_TEMP/check.txt"
        { echo; sed 's/^/    /' "$RUNNER_TEMP/check.txt"; echo; } >>"$GITHUB_STEP_SUMMARY"
        exit "$code"
    """
    job = _job(
        wishes,
        "check",
        ("timeout-minutes: 15", f"environment: {scalar(wishes.looking)}"),
        _checkout(wishes, is_whole=False),
        _install(wishes),
        _connect(wishes),
        _step("Check", script, HOST=scalar(wishes.host)),
        _serves(wishes),
    )
    head = """
        name: Check
        on:
          workflow_dispatch:
        permissions: {}
        concurrency:
          group: bulletproof-check
          cancel-in-progress: true
        jobs:
    """
    return _joined(head, job)


def _one_at_a_time(group: str) -> tuple[str, ...]:
    """Without `queue`, GitHub cancels the one that waits when another comes, even when that is of an older commit."""
    words = "# One after the other: none that runs or waits is cancelled."
    return (words, "concurrency:", f"  group: {group}", "  cancel-in-progress: false", "  queue: max")


def _test_job(wishes: Wishes) -> tuple[str, ...]:
    if not wishes.tests:
        return ()
    steps = (_checkout(wishes, is_whole=False), _step("Test", "\n".join(wishes.tests)))
    alone = ("concurrency:", "  group: bulletproof-test-${{ github.sha }}", "  cancel-in-progress: false")
    return (_job(wishes, "test", ("timeout-minutes: 30", *alone), *steps),)


def _job(wishes: Wishes, name: str, lines: tuple[str, ...], *steps: str) -> str:
    place = ("defaults:", "  run:", f"    working-directory: {scalar(wishes.folder)}") if wishes.folder else ()
    body = (f"name: {name.capitalize()}", "runs-on: ubuntu-latest", *lines, "permissions:", "  contents: read", *place)
    head = f"{name}:\n" + textwrap.indent("\n".join((*body, "steps:")), "  ")
    return textwrap.indent(head + "\n" + textwrap.indent("\n".join(steps), "    "), "  ")


def _checkout(wishes: Wishes, *, is_whole: bool) -> str:
    """The commit; with its history where that decides whether it is newer than what is live."""
    depth = "--filter=blob:none" if is_whole else "--depth=1"
    script = f"""
        export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="http.$GITHUB_SERVER_URL/.extraheader"
        GIT_CONFIG_VALUE_0="AUTHORIZATION: basic $(printf 'x-access-token:%s' "$TOKEN" | base64 --wrap=0)"
        export GIT_CONFIG_VALUE_0
        git init --quiet .
        git remote remove origin 2>/dev/null || true
        git remote add origin "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY.git"
        git fetch --quiet --no-tags {depth} origin "$GITHUB_SHA"
        git checkout --quiet --force --detach "$GITHUB_SHA"
        git clean --quiet -ffdx
    """
    place = "working-directory: ${{ github.workspace }}\n" if wishes.folder else ""
    return _step("Check out", script, more=place, **_TOKEN)


def _install(wishes: Wishes) -> str:
    script = """
        if [ "$(bulletproof --version 2>/dev/null)" != "bulletproof $VERSION" ]; then
          python3 -m venv "$RUNNER_TEMP/bulletproof"
          "$RUNNER_TEMP/bulletproof/bin/pip" install --quiet --disable-pip-version-check "$PACKAGE"
          echo "$RUNNER_TEMP/bulletproof/bin" >>"$GITHUB_PATH"
        fi
    """
    return _step("Install Bulletproof", script, PACKAGE=scalar(wishes.package), VERSION=scalar(wishes.version))


def _connect(wishes: Wishes) -> str:
    script = f"""
        if [ -z "$SSH_KEY" ] || [ -z "$KNOWN_HOSTS" ]; then
          echo "::error title=No key::The secrets {KEY_SECRET} (of this environment) and {HOSTS_SECRET} are needed"
          exit 1
        fi
        umask 077
        # A browser of Windows ends lines in its own way, which ssh does not take.
        printf '%s\\n' "$SSH_KEY" | tr -d '\\r' >"$RUNNER_TEMP/bulletproof-key"
        printf '%s\\n' "$KNOWN_HOSTS" | tr -d '\\r' >"$RUNNER_TEMP/bulletproof-known-hosts"
        {{
          printf 'IdentityFile "%s"\\nIdentitiesOnly yes\\n' "$RUNNER_TEMP/bulletproof-key"
          printf 'UserKnownHostsFile "%s"\\nGlobalKnownHostsFile /dev/null\\n' "$RUNNER_TEMP/bulletproof-known-hosts"
        }} >"$RUNNER_TEMP/bulletproof-ssh-config"
        echo "BULLETPROOF_SSH_CONFIG=$RUNNER_TEMP/bulletproof-ssh-config" >>"$GITHUB_ENV"
    """
    secrets = {"SSH_KEY": f"${{{{ secrets.{KEY_SECRET} }}}}", "KNOWN_HOSTS": f"${{{{ secrets.{HOSTS_SECRET} }}}}"}
    return _step(f"Be let in by {wishes.host}", script, **secrets)


def _serves(wishes: Wishes) -> str:
    script = """
        trap 'rm -f "$RUNNER_TEMP/bulletproof-key"' EXIT
        code=0
        bulletproof status --to "$HOST" >"$RUNNER_TEMP/status.txt" || code=$?
        cat "$RUNNER_TEMP/status.txt"
        { echo; sed 's/^/    /' "$RUNNER_TEMP/status.txt"; echo; } >>"$GITHUB_STEP_SUMMARY"
        exit "$code"
    """
    return _step("What serves now", script, more="if: always()\n", HOST=scalar(wishes.host))


def _step(name: str, script: str, *, more: str = "", **variables: str) -> str:
    lines = [f"- name: {scalar(name)}", *(f"  {line}" for line in more.splitlines())]
    if variables:
        lines += ["  env:", *(f"    {key}: {value}" for key, value in variables.items())]
    lines += ["  run: |", textwrap.indent(textwrap.dedent(script).strip("\n").rstrip(), "    ")]
    return "\n".join(lines)


def scalar(value: str) -> str:
    """A YAML scalar that is this text, and no expression of GitHub's; JSON's strings are YAML's."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_.@ -]*[A-Za-z0-9]", value) and value.lower() not in _NO_TEXT:
        return value
    quoted = json.dumps(value.replace("${{", "${{ '${{' }}"))
    return _PAIR.sub(lambda found: f"\\U{ord(json.loads(chr(34) + found[0] + chr(34))):08x}", quoted)


def _joined(head: str, *jobs: str) -> str:
    return "\n".join((textwrap.dedent(head).strip("\n").rstrip(), *jobs)) + "\n"
