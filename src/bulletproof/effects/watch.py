"""Refuses, inside a Python program, what reaches beyond its copy of the data, and notes it. Stand-alone.

It is copied as `sitecustomize.py` into a folder that comes first in PYTHONPATH, with its plan in `plan.json` beside it,
so that every Python that the program starts runs it before any code of the app. It runs in the release's Python, which
may be older than ours, and without this package.
"""

# An audit hook (sys.addaudithook) cannot be taken away again, but it sees only what CPython tells: not what a library
# in C does with files and sockets by itself, nor what a program that is not Python does. So the libraries known to do
# that are refused by name, and so are programs.
# ruff: noqa: ANN401, PTH100, PTH110, PTH115, PTH118, PTH119, PTH120, PTH123  (what CPython hands over; and no import of pathlib)

from __future__ import annotations

import errno
import importlib
import importlib.machinery
import importlib.util
import json
import os
import sys
from typing import Any, NoReturn

STARTED = "watched"
"""The line that each Python writes into the notes when its hook is in place."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_GUNICORN_HEARTBEAT = "/dev/shm/wgunicorn-"  # noqa: S108  made new under a random name and unlinked at once
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
_ATTACH = 24  # SQLITE_ATTACH in sqlite3.h; to import sqlite3 for it would load a library into every process
_HARMLESS_PROGRAMS = ("ldconfig", "uname")
"""What the standard library asks about the machine: ctypes.util and platform."""
_PATHS = {
    "os.chmod": (2, True),
    "os.chown": (3, True),
    "os.mkdir": (2, False),
    "os.remove": (1, False),
    "os.removexattr": (None, True),
    "os.rmdir": (1, False),
    "os.setxattr": (None, True),
    "os.truncate": (None, True),
    "os.utime": (3, True),
}
"""What changes the path given first: which argument is a folder's descriptor, and whether a symlink is followed."""
_UNWATCHED_MODULES = frozenset(
    {
        *("MySQLdb._mysql", "apsw", "grpc._cython", "psycopg2._psycopg", "psycopg_binary", "psycopg_c", "pycurl"),
        *("pymssql", "pyodbc", "pysqlite3", "sqlcipher3", "uvloop"),
    }
)
"""Libraries in C that open files or connections which nobody sees."""
_UNWATCHED_FUNCTIONS = frozenset(
    {
        *("PQconnectStart", "PQconnectStartParams", "PQconnectdb", "PQconnectdbParams", "bind", "connect", "creat"),
        *("execl", "execlp", "execv", "execve", "execvp", "fopen", "fopen64", "fork", "kill", "link", "linkat"),
        *("mount", "open", "open64", "openat", "openat64", "popen", "posix_spawn", "posix_spawnp", "prctl", "ptrace"),
        *("rename", "renameat", "renameat2", "rmdir", "sendmsg", "sendto", "socket", "sqlite3_open"),
        *("sqlite3_open_v2", "symlink", "symlinkat", "syscall", "system", "truncate", "truncate64", "unlink"),
        *("unlinkat", "vfork"),
    }
)
"""Functions of libc, libpq and SQLite that ctypes may not look up."""


class Watch:
    """The audit hook of one process and of those that it forks."""

    def __init__(self, here: str) -> None:
        with open(os.path.join(here, "plan.json"), encoding="utf-8") as file:
            plan = json.load(file)
        self._here = here
        self._output = (_of_descriptor(1), _of_descriptor(2))  # what /dev/stdout and /dev/stderr lead to
        self._has_guarded_sqlite = False
        self._notes: str = plan["notes"]
        self._heard: str = plan["connections"]
        self._writable = tuple(os.path.realpath(folder) for folder in plan["writable"])
        self._rules = {
            "ctypes.dlsym": self._look_up,
            "ctypes.dlsym/handle": self._look_up,
            "import": self._import,
            "open": self._open,
            "os.exec": self._execute,
            "os.kill": self._kill,
            "os.killpg": self._kill,
            "os.link": self._move,
            "os.posix_spawn": self._execute,
            "os.rename": self._move,
            "os.symlink": self._make_symlink,
            "os.system": self._use_shell,
            "socket.bind": self._bind,
            "socket.connect": self._send,
            "socket.getaddrinfo": self._resolve,
            "socket.gethostbyaddr": self._resolve,
            "socket.gethostbyname": self._resolve,
            "socket.sendmsg": self._send,
            "socket.sendto": self._send,
            "sqlite3.connect": self._open_database,
            "subprocess.Popen": self._start_program,
            **dict.fromkeys(_PATHS, self._change),
        }

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raise PermissionError when the event reaches beyond the copy."""
        rule = self._rules.get(event)
        if rule is not None:
            rule(event, arguments)

    def note(self, line: str) -> None:
        """Add a line to the notes; short ones of several processes do not mix."""
        file = os.open(self._notes, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, (line.replace("\n", " ")[:500] + "\n").encode(errors="replace"))
        finally:
            os.close(file)

    def _refuse(self, event: str, what: object) -> NoReturn:
        self.note(f"{event} {what}")
        raise PermissionError(errno.EACCES, f"refused while the release is rehearsed: {event}", str(what))

    # --- files

    def _open(self, event: str, arguments: tuple[Any, ...]) -> None:
        path, _, flags = arguments
        if flags & _WRITES and not isinstance(path, int) and path not in (self._notes, self._heard):
            self._must_be_ours(event, path)

    def _change(self, event: str, arguments: tuple[Any, ...]) -> None:
        position, follows = _PATHS[event]
        folder = -1 if position is None else arguments[position]
        if event == "os.mkdir" and folder == -1 and os.path.lexists(arguments[0]):
            return  # it will fail; os.makedirs(exist_ok=True) tries that
        self._must_be_ours(event, arguments[0], folder, follows=follows)

    def _move(self, event: str, arguments: tuple[Any, ...]) -> None:
        source, destination, source_folder, destination_folder = arguments
        self._must_be_ours(event, source, source_folder, follows=False)
        self._must_be_ours(event, destination, destination_folder, follows=False)

    def _make_symlink(self, event: str, arguments: tuple[Any, ...]) -> None:
        self._must_be_ours(event, arguments[1], arguments[2], follows=False)

    def _must_be_ours(self, event: str, path: Any, folder: int = -1, *, follows: bool = True) -> None:
        place = _place(path, folder, follows=follows)
        if not self._is_ours(place):
            self._refuse(event, place)

    def _is_ours(self, place: str) -> bool:
        below = any(place == folder or place.startswith(folder + "/") for folder in self._writable)
        given = place in _DEVICES or place in self._output or place.startswith(_GUNICORN_HEARTBEAT)
        return below or given or not place.startswith("/")  # an anonymous file, such as a pipe, has no path

    # --- databases

    def _open_database(self, event: str, arguments: tuple[Any, ...]) -> None:
        path = _database_path(os.fsdecode(arguments[0]))
        if path:
            self._must_be_ours(event, path)

    def _guard_sqlite(self) -> None:
        """SQLite opens what is attached (and what VACUUM INTO writes) by itself, but asks an authorizer first.

        An audit event hands over each new connection, but too early to give it one; so `connect` is another from its
        import on.
        """
        import _sqlite3  # noqa: PLC0415  only when the program imports it

        connect = _sqlite3.connect

        def guarded(*arguments: Any, **options: Any) -> Any:
            connection = connect(*arguments, **options)
            connection.set_authorizer(self._authorize)
            return connection

        _sqlite3.connect = guarded

    def _authorize(self, action: int, name: str | None, *_: object) -> int:
        if action == _ATTACH and (name is None or not self._may_attach(name)):
            self.note(f"sqlite3 ATTACH {name or 'of a name that is only known later'}")
            return 1  # SQLITE_DENY
        return 0

    def _may_attach(self, name: str) -> bool:
        path = _database_path(name)
        return not path or self._is_ours(_place(path))

    # --- connections

    def _send(self, event: str, arguments: tuple[Any, ...]) -> None:
        address = arguments[1]
        if address is not None and not self._is_our_socket(address):
            self._refuse(event, _printable(address))

    def _bind(self, event: str, arguments: tuple[Any, ...]) -> None:
        """A port of the machine may be taken, if it is free; a socket's file must be ours."""
        address = arguments[1]
        if isinstance(address, (str, bytes)) and not self._is_our_socket(address):
            self._refuse(event, _printable(address))

    def _is_our_socket(self, address: Any) -> bool:
        """Only unix sockets have a path; an empty one is not bound yet, and a zero byte begins an abstract name."""
        if not isinstance(address, (str, bytes)):
            return False
        name = os.fsdecode(address)
        return name == "" or (not name.startswith("\0") and self._is_ours(_place(name)))

    def _resolve(self, event: str, arguments: tuple[Any, ...]) -> None:
        """To ask for a name's address is to send it to a server."""
        host = arguments[0]
        name = host.decode(errors="replace") if isinstance(host, bytes) else host
        if name not in (None, "", "localhost", os.uname().nodename) and not _is_numeric(name):
            self._refuse(event, name)

    # --- other programs and libraries

    def _start_program(self, event: str, arguments: tuple[Any, ...]) -> None:
        executable, words, _, environment = arguments
        self._must_be_watched(event, executable, words, environment)

    def _execute(self, event: str, arguments: tuple[Any, ...]) -> None:
        self._must_be_watched(event, *arguments)

    def _use_shell(self, event: str, arguments: tuple[Any, ...]) -> None:
        self._refuse(event, os.fsdecode(arguments[0]))

    def _must_be_watched(self, event: str, program: Any, words: Any, environment: Any) -> None:
        """A program must be a Python that runs this file as well; one that is not there fails by itself."""
        surroundings = os.environ if environment is None else dict(environment)
        found = _find(os.fsdecode(program), surroundings)
        if not os.path.exists(found) or os.path.basename(found) in _HARMLESS_PROGRAMS:
            return
        texts = [os.fsdecode(word) for word in words]
        is_first = _variable(surroundings, "PYTHONPATH").split(os.pathsep)[0] == self._here
        if not (is_first and _is_watched_python(found, texts[1:])):
            self._refuse(event, " ".join(texts))

    def _kill(self, event: str, arguments: tuple[Any, ...]) -> None:
        pid, number = arguments
        if number and pid > 0 and not _is_of_our_session(pid):
            self._refuse(event, f"{pid} with signal {int(number)}")

    def _look_up(self, event: str, arguments: tuple[Any, ...]) -> None:
        if arguments[1] in _UNWATCHED_FUNCTIONS:
            self._refuse(event, arguments[1])

    def _import(self, _: str, arguments: tuple[Any, ...]) -> None:
        """As if it were not installed: uvicorn does without uvloop, and nothing was reached that should be told."""
        if arguments[0] in _UNWATCHED_MODULES:
            raise ImportError(f"{arguments[0]} cannot be watched, so it may not be used while the release is rehearsed")
        if arguments[0] == "_sqlite3" and not self._has_guarded_sqlite:
            self._has_guarded_sqlite = True
            self._guard_sqlite()


def _place(path: Any, folder: int = -1, *, follows: bool = True) -> str:
    """The absolute path without symlinks, the last one only if it would be followed; of a descriptor, what it is."""
    if isinstance(path, int):
        return _of_descriptor(path)
    name = os.fsdecode(path)
    if folder != -1:
        name = os.path.join(_of_descriptor(folder), name)
    if follows:
        return os.path.realpath(name)
    parent, last = os.path.split(name.rstrip("/") or "/")
    return os.path.join(os.path.realpath(parent), last)


def _of_descriptor(number: int) -> str:
    return os.readlink(f"/proc/self/fd/{number}")


def _database_path(name: str) -> str:
    """The file of a name as SQLite reads it; empty when it is in memory or temporary."""
    if name.startswith("file:"):
        from urllib.parse import unquote, urlsplit  # noqa: PLC0415  few programs need it

        parts = urlsplit(name)
        is_in_memory = "mode=memory" in parts.query.split("&")
        name = "" if is_in_memory else unquote(parts.path)
    return "" if name == ":memory:" else name


def _printable(address: Any) -> str:
    if isinstance(address, tuple):
        return ":".join(str(part) for part in address[:2])
    return os.fsdecode(address).replace("\0", "@")


def _is_numeric(name: str) -> bool:
    import socket  # noqa: PLC0415  whoever asks for an address has imported it

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, name)
        except (OSError, ValueError):
            continue
        return True
    return False


def _find(program: str, environment: Any) -> str:
    """Where a program lies, looked for as subprocess does it."""
    import shutil  # noqa: PLC0415  few programs need it

    return shutil.which(program, path=os.pathsep.join(os.get_exec_path(environment))) or program


def _is_watched_python(program: str, words: list[str]) -> bool:
    """It is a Python, or a script that begins by naming one, and its options do not keep it from running this file."""
    if os.path.basename(os.path.realpath(program)).startswith("python"):
        return not _ignores_us(words)
    try:
        with open(program, "rb") as file:
            first, second, *_ = [*file.read(512).decode(errors="replace").split("\n"), ""]
    except OSError:
        return False
    # The second line names it where its path is too long for the first one, as pip and uv do it.
    named = second if first == "#!/bin/sh" and second.startswith("'''exec' ") else first
    return first.startswith("#!") and "python" in named and not _ignores_us(named.split()[1:])


def _ignores_us(words: list[str]) -> bool:
    """Whether a Python with these arguments would not run this file: -I, -S or -E before its script or module."""
    is_value = False
    for word in words:
        if is_value:
            is_value = False
            continue
        if not word.startswith("-") or word == "-":
            return False
        for position, option in enumerate(word[1:], start=2):
            if option in "cm":
                return False
            if option in "ISE":
                return True
            if option in "XW":
                is_value = position == len(word)
                break
    return False


def _variable(environment: Any, name: str) -> str:
    """The value of a variable in an environment of texts or bytes."""
    for key, value in environment.items():
        if os.fsdecode(key) == name:
            return os.fsdecode(value)
    return ""


def _is_of_our_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == os.getsid(0)
    except ProcessLookupError:
        return True  # nobody is there to be hit


def _run_the_other(here: str) -> None:
    """Run the `sitecustomize` that we stand before, if there is one."""
    sys.path[:] = [entry for entry in sys.path if entry != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize")
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


def _listen(here: str) -> None:
    """Run connections.py, which lies beside us; what goes wrong in it is not the program's to know."""
    try:  # noqa: SIM105  contextlib is not loaded in every Python
        importlib.import_module("_bulletproof_connections").begin(here)
    except Exception:  # noqa: BLE001, S110
        pass


def _begin(here: str) -> None:
    """Watch this process from now on. Whatever goes wrong here ends it: it may not run unwatched."""
    try:
        watch = Watch(here)
        sys.dont_write_bytecode = True  # a write into the release would be refused, and told as an attempt
        sys.addaudithook(watch)
        watch.note(STARTED)
    except BaseException as error:  # noqa: BLE001  `site` would print it and go on
        os.write(2, f"{here}: the audit hook could not be put in place: {error!r}\n".encode())
        os._exit(97)


if __name__ == "sitecustomize":
    _begin(os.path.dirname(os.path.abspath(__file__)))
    _listen(os.path.dirname(os.path.abspath(__file__)))
    _run_the_other(os.path.dirname(os.path.abspath(__file__)))
