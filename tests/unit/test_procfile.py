"""A Procfile: what its lines mean as a configuration, what is not taken over, and how mistakes are told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bulletproof.domain import command, toml
from bulletproof.domain.config import Server, Worker
from bulletproof.domain.procfile import parse_procfile
from bulletproof.effects.project import read_config
from bulletproof.errors import UsageError
from bulletproof.operations.init import describe, initialise, warnings

_UNKNOWN = "not taken over: it is no plain command of gunicorn or uvicorn"


@pytest.mark.parametrize(
    ("line", "app", "words"),
    [
        ("gunicorn app:app", {"entry": "app:app"}, "entry app:app"),
        (
            "gunicorn -w 4 --threads 2 --timeout=60 'app:create_app()' --bind 0.0.0.0:$PORT --log-file -",
            {"entry": "app:create_app()", "workers": 4, "threads": 2, "timeout_seconds": 60},
            "entry app:create_app(), workers 4, threads 2, timeout_seconds 60",
        ),
        ("exec python -m gunicorn -w2 mysite.wsgi", {"entry": "mysite.wsgi:application", "workers": 2}, "entry"),
        (
            "uvicorn main:app --host 0.0.0.0 --port $PORT --workers 2 --proxy-headers",
            {"entry": "main:app", "workers": 2, "server": "uvicorn"},
            "entry main:app, workers 2, server uvicorn",
        ),
        (
            "uvicorn --factory main:make",
            {"entry": "main:make()", "server": "uvicorn"},
            "entry main:make(), server uvicorn",
        ),
        (
            "gunicorn -k uvicorn.workers.UvicornWorker main:app --threads 3",
            {"entry": "main:app", "server": "uvicorn"},
            "entry main:app, server uvicorn",
        ),
        (
            "gunicorn -w $WEB_CONCURRENCY app:app --preload --max-requests=100 -k gevent",
            {"entry": "app:app"},
            "entry app:app; not taken over: -w '$WEB_CONCURRENCY' --preload --max-requests=100 -k gevent",
        ),
        ("gunicorn -w 900 app:app", {"entry": "app:app"}, "entry app:app; not taken over: -w 900"),
        ("gunicorn --chdir src app:app", {}, "nothing of it; not taken over: --chdir src app:app"),
        ("python app.py", {}, _UNKNOWN),
        ("cd src && gunicorn app:app", {}, _UNKNOWN),
        ("gunicorn app:app | tee log", {}, _UNKNOWN),
        ("A=1 gunicorn app:app", {}, _UNKNOWN),
        ("daphne app.asgi:application", {}, _UNKNOWN),
    ],
)
def test_the_web_line_is_understood(line: str, app: dict[str, object], words: str) -> None:
    """Entry, server, workers, threads and time-out, as far as given; all else is said to be left out."""
    procfile = parse_procfile(f"web: {line}\n")
    assert procfile.tables == ({"app": app} if app else {})
    assert procfile.meanings[0].words.startswith(words)


@pytest.mark.parametrize(
    ("line", "configured", "words"),
    [
        ("flask db upgrade", "", "what Flask-Migrate does is found without it"),
        ("python -m flask --app shop db upgrade", "", "what Flask-Migrate does is found without it"),
        ("flask --app shop db upgrade", "", "what Flask-Migrate does is found without it"),
        ("poetry run alembic -c deploy.ini upgrade head", "", "what Alembic does is found without it"),
        ("alembic upgrade ae1", "alembic upgrade ae1", 'migrates the database: command = "alembic upgrade ae1"'),
        ("python manage.py migrate --noinput", "", "what Django does is found without it"),
        ("python3 ./manage.py migrate && python manage.py collectstatic --noinput", "", "what Django does is found"),
        ("python manage.py migrate shop", "python manage.py migrate shop", "migrates the database"),
        ("./release.sh", "./release.sh", 'migrates the database: command = "./release.sh" of [migrations]'),
        ("flask db upgrade && flask seed", "flask db upgrade && flask seed", "migrates the database"),
        ("./seed && python manage.py collectstatic", "./seed", "migrates the database"),
    ],
)
def test_the_release_line_is_the_migration(line: str, configured: str, words: str) -> None:
    """A built-in migrator does the very same; anything else is the migration command."""
    procfile = parse_procfile(f"release: {line}\n")
    assert procfile.tables == ({"migrations": {"command": configured}} if configured else {})
    assert procfile.meanings[0].words.startswith(words)
    assert ("collectstatic" in procfile.meanings[0].words) == ("collectstatic" in line)


def test_other_lines_are_workers() -> None:
    """Comments, blank lines and Windows' line ends are fine."""
    procfile = parse_procfile("# ours\r\n\r\nmail: celery -A shop worker\r\nBeat_2:   celery -A shop beat  \r\n")
    assert procfile.tables == {
        "workers": {"mail": {"command": "celery -A shop worker"}, "Beat_2": {"command": "celery -A shop beat"}}
    }
    assert [(one.line.name, one.line.number) for one in procfile.meanings] == [("mail", 3), ("Beat_2", 4)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web gunicorn", "Procfile:1:1: a line is `name: command`"),
        ("a: x\n\na: y", "Procfile:3:1: `a` stands here a second time"),
        ("a:", "Procfile:1:3: `a` has no command"),
        ("7: x", "Procfile:1:1: `7` must begin with a letter"),
        ("a: echo 'x", "Procfile:1:3: a quote in it is not closed"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, message: str) -> None:
    """Line and column, as of bulletproof.toml, and exit status 2."""
    with pytest.raises(UsageError) as failure:
        parse_procfile(text)
    assert failure.value.message.startswith(message)
    assert (failure.value.reference, failure.value.exit_code) == ("procfile-invalid", 2)


def test_the_configuration_wins_over_the_procfile(tmp_path: Path) -> None:
    """Key by key; but workers are those of the one or of the other."""
    (tmp_path / "Procfile").write_text("web: gunicorn -w 5 --threads 2 a:b\nrelease: ./migrate\nmail: celery\n")
    path = tmp_path / "bulletproof.toml"
    path.write_text('name = "shop"\napp.threads = 4\n')
    config = read_config(path)
    assert (config.app.entry, config.app.workers, config.app.threads) == ("a:b", 5, 4)
    assert config.migrations.command == "./migrate"
    assert config.workers == {"mail": Worker(command="celery")}

    path.write_text('name = "shop"\nworkers.post.command = "rq worker"\nmigrations.command = ""\n')
    config = read_config(path)
    assert config.workers == {"post": Worker(command="rq worker")}
    assert not config.migrations.command
    path.write_text('name = "shop"\n[workers]\n')
    assert not read_config(path).workers
    (tmp_path / "Procfile").write_bytes(b"mail: \xff\n")
    with pytest.raises(UsageError, match="Procfile:1:7: the file is not UTF-8 text"):
        read_config(path)


def test_init_tells_what_it_found_in_the_procfile(tmp_path: Path) -> None:
    """Each line with its meaning; the entry is taken from it; what it migrates with and is not there is a warning."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "main.py").write_text("def app(environ, start_response): ...\n")
    (folder / "Procfile").write_text("web: gunicorn -w 7 main:app\nrelease: flask db upgrade\nmail: python mail.py\n")
    done = initialise(folder)
    assert (done.config.app.entry, done.config.app.workers, done.config.app.server) == ("main:app", 7, Server.GUNICORN)
    assert done.config.workers == {"mail": Worker(command="python mail.py")}
    written = done.path.read_text()
    assert max(map(len, written.splitlines())) <= 120
    uncommented = re.sub(r"(?m)^# (?=[a-z_.]+ = )", "", written)
    assert toml.parse(uncommented).workers == {"mail": Worker(command="python mail.py")}
    lines = {line.what: line.why for line in describe(done.findings) if line.topic == "Procfile"}
    assert lines["mail (line 3)"].startswith("python mail.py: a worker")
    assert [line.why for line in describe(done.findings) if line.topic == "entry"] == ["Procfile:1"]
    assert any(
        "migrates with Flask-Migrate, and no migrations were found" in words for words in warnings(done.findings)
    )


@pytest.mark.parametrize(
    ("text", "shell", "program", "script"),
    [
        ("celery -A app worker", "exec celery -A app worker", "celery", ""),
        ("A=1 B=2 celery worker", "exec env A=1 B=2 celery worker", "celery", ""),
        (
            "env A=1 python3.11 work.py > log 2>&1",
            "exec env A=1 python3.11 work.py > log 2>&1",
            "python3.11",
            "work.py",
        ),
        ("exec rq worker", "exec rq worker", "rq", ""),
        ("python 'my work.py'", "exec python 'my work.py'", "python", "my work.py"),
        ("cd x && python y.py", "trap exit TERM INT QUIT; cd x && python y.py", "", ""),
        ("while :; do ./once; sleep 5; done", "trap exit TERM INT QUIT; while :; do ./once; sleep 5; done", "", ""),
        ("$WORKER --all", "exec $WORKER --all", "", ""),
        ("a | b", "trap exit TERM INT QUIT; a | b", "a", ""),
    ],
)
def test_a_command_is_run_by_a_shell_that_hands_signals_on(text: str, shell: str, program: str, script: str) -> None:
    """A simple command takes the shell's place; what it needs to exist is known where only a shell could not tell."""
    assert command.shell_argv(text) == ("/bin/sh", "-c", shell)
    assert command.is_simple(text) == shell.startswith("exec")
    assert (command.program_of(text), command.script_of(text)) == (program, script)


def test_a_known_consumer_is_asked_as_it_wants_to_be() -> None:
    """huey's finishes its job at SIGINT alone, unless it is told otherwise."""
    assert command.graceful_signal("huey_consumer.py tasks.huey") == "INT"
    assert command.graceful_signal("python manage.py run_huey -w 2") == "INT"
    assert command.graceful_signal("huey_consumer tasks.huey --graceful-signal=TERM") == "TERM"
    assert command.graceful_signal("celery -A huey worker") == "TERM"
