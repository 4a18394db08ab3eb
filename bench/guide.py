"""The guide's own procedure: one folder, one virtual environment, backup by cp, pip in place, restart."""

from __future__ import annotations

import shutil
import socket
import sys
import time
from pathlib import Path

from uv import find_uv_bin

from bench.command import Finished, run
from bench.content import fill
from bench.service import Service
from bulletproof.effects.probe import ask_port
from bulletproof.effects.process import run_checked
from bulletproof.errors import BulletproofError, UsageError

BEFORE_THE_RESTART = r"""
# Backup database before changes; keep only the last three.
cp app_dev.db app_dev.db.backup.$(date +%Y%m%d_%H%M%S)
ls -t app_dev.db.backup.* | tail -n +4 | xargs -r rm -f

# Pull the latest code.
git pull --quiet --ff-only origin "$RELEASE"

# Fix permissions.
chown -R "$(id -un)" .
chmod 664 app_dev.db

# Recreate the virtual environment: "done automatically in deployment", says the guide where it repairs one.
if [ "$REBUILD" = yes ]; then rm -rf venv && python3 -m venv venv; fi

# Install dependencies.
pip install -r requirements.txt

# Ensure database tables exist; run migrations safely.
python3 -c "from app import create_app, db; app = create_app(); app.app_context().push(); db.create_all()"
flask db upgrade || (flask db stamp head && flask db upgrade)
"""
AFTER_THE_RESTART = r"""
# Test database connection. The guide's own line lacks the application context and would always fail.
python3 -c "from app import create_app; create_app().app_context().push()
from app.models import User; User.query.count()"

# Test Flask app response.
curl -s "http://127.0.0.1:$PORT/" > /dev/null
"""
_HEALTH = r"""
# The guide names ten checks and does not show its script; each is done by the guide's own command where it has one.
venv/bin/python -m pip check > /dev/null && echo "virtual environment ok"
[ "$(stat -c %a app_dev.db)" = 664 ] && echo "database file ok"
python3 -c "from app import create_app; create_app().app_context().push()
from app.models import User; User.query.count()" && echo "database ok"
kill -0 "$SERVICE" && echo "service ok"
[ "$(pgrep -f "$PWD/venv/bin/gunicorn" | wc -l)" -ge 4 ] && echo "processes ok"
curl -s "http://127.0.0.1:$PORT/" > /dev/null && echo "response ok"
curl -s "http://127.0.0.1:$PORT/auth/login" > /dev/null && curl -s "http://127.0.0.1:$PORT/auth/register" > /dev/null \
  && echo "authentication ok"
echo "errors in the log: $(tail -n 100 ../error.log | grep -c ERROR)"
python3 -c "from app import create_app; create_app()" && echo "configuration ok"
echo "backups: $(ls app_dev.db.backup.* 2> /dev/null | wc -l)"
"""
_PROGRAMS = ("bash", "curl", "git")
_NOT_ACTIVE = 3  # The exit status of `systemctl is-active` for a service that is not.
_READY_SECONDS = 30.0


class Guide:
    """The app as the guide runs it, behind nothing: clients reach gunicorn itself."""

    name = "the guide"

    def __init__(self, folder: Path, project: Path) -> None:
        """Nothing is done before `lay`."""
        self._project = project
        self._folder = folder
        self._app = folder / "datacharted-app"
        self._port = _free_port()
        self._environment = {
            "PATH": f"{self._app}/venv/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "SECRET_KEY": "only-for-the-measurement",
            "DATABASE_URL": "sqlite:///app_dev.db",
            "FLASK_APP": "run",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PORT": str(self._port),
        }
        program = f"{self._app}/venv/bin/gunicorn"
        self._service = Service(
            (program, "--workers", "3", "--bind", f"127.0.0.1:{self._port}", "run:app"),
            folder=self._app,
            environment=self._environment,
            log=folder / "error.log",
        )

    @property
    def address(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def database(self) -> Path:
        """The live database."""
        return self._app / "app_dev.db"

    def lay(self) -> None:
        """Clone, install, make the database, serve v1. Raises BulletproofError in words."""
        _refuse_without_programs()
        run_checked(
            ("git", "clone", "--quiet", self._project, self._app),
            folder=self._folder,
            reference="bench-not-prepared",
            failure="git clone failed",
        )
        self._checked("git", "checkout", "--quiet", "-B", "main", "v1")
        self._checked(sys.executable, "-m", "venv", "venv")
        run_checked(
            (find_uv_bin(), "pip", "install", "--compile-bytecode", "--python", "venv", "-r", "requirements.txt"),
            folder=self._app,
            reference="bench-not-prepared",
            failure="the guide's virtual environment could not be made",
        )
        self._checked("venv/bin/flask", "db", "upgrade")
        (self._app / "app_dev.db").chmod(0o664)
        fill(self.database)
        self._service.start()
        self._wait_until_ready()

    def deploy(self, release: str, *, rebuild: bool = False) -> Finished:
        """The guide's procedure, command for command, as a CI job runs it: the first failure ends it.

        With `rebuild` the virtual environment is removed and made anew, as the guide says in one place and not in
        the other.
        """
        first = self._script(BEFORE_THE_RESTART, release, rebuild=rebuild)
        if first.status != 0:
            return first
        begun = time.monotonic()
        self._service.restart()
        restart = Finished(status=0, seconds=time.monotonic() - begun, cpu_seconds=0.0, output="", errors="")
        last = self._script(AFTER_THE_RESTART, release)
        if last.status == 0 and not self._service.is_active:
            last = last.then(Finished(status=_NOT_ACTIVE, seconds=0.0, cpu_seconds=0.0, output="", errors=""))
        return first.then(restart).then(last)

    def check(self) -> Finished:
        """The guide's health check: ten looks, one after the other."""
        return run(("bash", "-c", _HEALTH), folder=self._app, environment=self._environment | {"SERVICE": self._pid})

    @property
    def _pid(self) -> str:
        return str(self._service.pid)

    def reset(self) -> None:
        """Serve v1 again; no part of what is measured, since the guide names no way back."""
        self._checked("git", "checkout", "--quiet", "-B", "main", "v1")
        self._service.restart()
        self._wait_until_ready()

    def close(self) -> None:
        """Stop it, however far it came."""
        self._service.stop()

    def _script(self, text: str, release: str, *, rebuild: bool = False) -> Finished:
        told = {"RELEASE": release, "REBUILD": "yes" if rebuild else "no"}
        return run(("bash", "-e", "-c", text), folder=self._app, environment=self._environment | told)

    def _checked(self, *argv: str) -> None:
        run_checked(
            argv,
            folder=self._app,
            environment=self._environment,
            reference="bench-not-prepared",
            failure=f"{' '.join(argv)} failed while the guide's host was prepared",
        )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not ask_port(self._port, "/up", timeout_seconds=5.0).is_healthy:
            if time.monotonic() > deadline:
                raise BulletproofError("bench-not-prepared", "v1 does not answer at the guide's host")
            time.sleep(0.05)


def _refuse_without_programs() -> None:
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        raise UsageError(
            "program-missing", f"the guide's procedure needs {', '.join(missing)}", hint="apt-get install curl git"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
