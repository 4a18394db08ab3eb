"""A lint: state on disk changes through effects/durable.py alone, and processes start through their own two doors."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import bulletproof

PACKAGE = Path(bulletproof.__file__).parent


@dataclass(frozen=True)
class Allowance:
    """What a module may do itself, and why it needs no door for that."""

    forms: frozenset[str]
    reason: str


# A module that is not named here may do nothing of it. Keep this short: whoever adds a line says why a power cut in the
# middle of it loses nothing, or why its process cannot be one of the two doors' own.
ALLOWED = {
    "effects/durable.py": Allowance(
        frozenset({"os.chmod", "os.fchmod", "os.ftruncate", "os.mkdir", "os.open", "os.rename", "os.rmdir",
                   "os.symlink", "os.unlink"}),
        "it is the door"),
    "effects/lock.py": Allowance(
        frozenset({"os.ftruncate", "os.open"}),
        "the note in the lock tells of kills only, and is worth nothing after a power cut"),
    "effects/health_record.py": Allowance(frozenset({"os.open"}), "a flock on an empty file"),
    "effects/tree.py": Allowance(
        frozenset({"open", "os.chmod", "os.fchmod", "os.mkdir", "os.open", "os.symlink", "os.utime"}),
        "it lays trees under a temporary name; sync_tree and rename of the door make state of them"),
    "adapters/backups.py": Allowance(
        frozenset({".chmod", ".hardlink_to"}),
        "it builds a backup in a new folder of the door, which is synced whole before it gets its name"),
    "effects/packing.py": Allowance(
        frozenset({".chmod", ".mkdir", ".open", ".symlink_to", "os.utime", "tarfile.open"}),
        "it fills a new folder of the door, or lays files that it or the door syncs before anybody uses them"),
    "adapters/embedded/listener.py": Allowance(frozenset({".chmod"}), "the mode of a socket, bound anew after a boot"),
    "adapters/embedded/recovery.py": Allowance(frozenset({"os.open"}), "a log, only appended to"),
    "effects/rotation.py": Allowance(frozenset({"os.open", "os.truncate"}), "a log is no state"),
    "adapters/embedded/running.py": Allowance(frozenset({"os.open"}), "the log that the app appends to itself"),
    "adapters/embedded/runtime.py": Allowance(frozenset({".chmod", "os.utime"}), "the folder of sockets only"),
    "adapters/embedded/supervisor.py": Allowance(frozenset({"os.open"}), "its log, and a flock on an empty file"),
    "adapters/inside/answer.py": Allowance(
        frozenset({".replace", ".write_text"}),
        "it runs in the release's python without this package, and its answer is read once and thrown away"),
    "adapters/inside/migrate.py": Allowance(
        frozenset({".write_text"}),
        "it runs in the release's python without this package, and its answer is read once and thrown away"),
    "effects/cell.py": Allowance(
        frozenset({"open", "os.execve", "os.fork", "os.makedirs", "os.mkdir", "os.rmdir", "os.symlink"}),
        "it builds a root in memory, in a namespace of its own, and becomes the program in it"),
    "effects/bundle.py": Allowance(
        frozenset({".open", "tarfile.open"}), "it packs and unpacks in a scratch folder, of which nothing is kept"),
    "effects/chronicle.py": Allowance(
        frozenset({"os.open"}), "what a deployment told is only shown; what happened is in the journal"),
    "effects/engine_host.py": Allowance(
        frozenset({"open", "os.chmod", "os.makedirs", "os.replace", "os.symlink", "os.unlink", "shutil.copyfileobj",
                   "shutil.rmtree", "subprocess", "subprocess.run"}),
        "it runs on a host without this package; it syncs an engine, and the folder in which `current` leads to it"),
    "effects/partial.py": Allowance(
        frozenset({"os.ftruncate", "os.open"}),
        "a part of a transfer, worth fetching again; when it is whole, rename of the door makes state of it"),
    "adapters/depots/folder.py": Allowance(
        frozenset({".rmdir"}), "an empty folder of a depot, which no power cut need keep from coming back"),
    "effects/wheels.py": Allowance(frozenset({".open", "tarfile.open"}), "it writes to a file without a name"),
    "effects/ownership.py": Allowance(
        frozenset({".chmod", ".rename", ".unlink", "os.chown"}),
        "owners and modes, which are set again before each use; a file of no more use is taken over, or goes"),
    "effects/room.py": Allowance(
        frozenset({".rmdir", ".touch", ".unlink", "os.open"}), "files without content, of which none is owed"),
    "adapters/systemd.py": Allowance(
        frozenset({"os.chown"}), "the owner of a log that is made this instant"),
    "wiring/__init__.py": Allowance(frozenset({".chmod"}), "the folder of a plan, of which nothing is kept"),
    "effects/scratch.py": Allowance(
        frozenset({".rmdir", "os.open"}),
        "a folder of its own among those of others, and the file that is locked in it; no power cut need survive them"),
    "effects/watch.py": Allowance(
        frozenset({"os.open"}),
        "it runs in the release's python without this package, and its notes are read once and thrown away"),
    "effects/notice.py": Allowance(
        frozenset({"os.open"}),
        "it runs in the release's python without this package, and its notes are read once and thrown away"),
    "effects/connections.py": Allowance(
        frozenset({"os.open"}),
        "it runs in the release's python without this package, and its notes are read once and thrown away"),
    "effects/sqlite_pages.py": Allowance(
        frozenset({"os.ftruncate", "os.open"}),
        "it syncs what it writes, a copy that is used only when it has ended well"),
    "effects/sqlite_reader.py": Allowance(
        frozenset({"os.open"}), "the copy that SQLite is about to write and sync, held to hurry the kernel"),
    "operations/offsite.py": Allowance(
        frozenset({".mkdir", ".unlink", ".write_bytes"}), "a scratch folder, of which nothing is kept"),
    "effects/sqlite_wal.py": Allowance(
        frozenset({"os.open"}), "a file of passage: the process that has the database alone reads it once and syncs"),
    "effects/sqlite_keeper.py": Allowance(
        frozenset({"os.ftruncate", "os.open"}),
        "it is a process of its own, which syncs the log that it lays, and SQLite ignores one without its last frame"),
    "effects/process.py": Allowance(frozenset({".open"}), "the log that a program's output is appended to"),
    "cli/actions.py": Allowance(frozenset({".open"}), "the summary of a job, on a machine that is gone afterwards"),
    "cli/run.py": Allowance(frozenset({"os.execvpe"}), "it becomes the command that the person typed"),
    "demo/commands.py": Allowance(
        frozenset({"subprocess", "subprocess.Popen"}), "it kills its own deployment in the middle, so it holds it"),
    "demo/ledger.py": Allowance(frozenset({"os.open"}), "the record of one demonstration, over when the machine stops"),
    "demo/playground.py": Allowance(frozenset({"shutil.copytree"}), "a project made anew for each demonstration"),
    "demo/story.py": Allowance(frozenset({".unlink"}), "what a broken release has filled the disk with"),
    "demo/traffic.py": Allowance(
        frozenset({".open", "subprocess", "subprocess.Popen"}), "it holds the traffic generator and reads its log"),
    "prove/__main__.py": Allowance(
        frozenset({"os.execvp"}),
        "it becomes itself in a mount namespace of its own"),
    "prove/children.py": Allowance(
        frozenset({".unlink", "subprocess", "subprocess.Popen"}),
        "it stops what the tool under test started, to meet it with a fault"),
    "prove/clock.py": Allowance(
        frozenset({".write_text", "subprocess", "subprocess.Popen"}),
        "it starts the tool under test with a clock that it moves"),
    "prove/disk.py": Allowance(
        frozenset({".mkdir", ".open", ".touch", ".unlink", ".write_text", "shutil.rmtree", "subprocess",
                   "subprocess.run"}),
        "it makes a disk to break it, which is gone when the proof ends"),
    "prove/host.py": Allowance(
        frozenset({".chmod", ".mkdir", ".symlink_to", ".unlink", ".write_text", "shutil.copytree", "shutil.rmtree",
                   "subprocess", "subprocess.Popen", "subprocess.run"}),
        "it starts and kills the tool under test in a scratch folder of which nothing is kept"),
    "prove/hostile.py": Allowance(
        frozenset({"open", "os.execv", "pty", "pty.fork", "subprocess", "subprocess.run"}),
        "it starts, signals and kills the tool under test from outside"),
    "prove/oracle.py": Allowance(frozenset({"shutil.copy"}), "a copy of the journal to read where the disk is full"),
    "prove/power.py": Allowance(
        frozenset({".mkdir", "subprocess"}),
        "it holds the deployment that it cuts off, on a disk that it breaks"),
    "prove/scenarios.py": Allowance(
        frozenset({".touch", ".unlink"}),
        "a mark in a scratch folder that makes a release ill"),
    "prove/subject.py": Allowance(
        frozenset({".touch", ".write_text", "shutil.copy", "shutil.copytree"}),
        "a project made anew for each proof"),
    "prove/own.py": Allowance(
        frozenset({".mkdir"}), "a scratch project of which nothing is kept"),
    "prove/warm.py": Allowance(
        frozenset({".rename", ".unlink", ".write_text", "os.fork", "subprocess", "subprocess.Popen"}),
        "it becomes the tool under test in a fork of itself, as a shell would start it"),
}  # fmt: skip
DOOR = "bulletproof.effects.durable."
PROCESS_DOORS = ("effects/process.py", "adapters/embedded/")

CHANGES_DISK = {
    *("chmod", "chown", "fchmod", "fchown", "ftruncate", "lchmod", "lchown", "link", "makedirs", "mkdir", "mkfifo"),
    *(
        "mknod",
        "remove",
        "removedirs",
        "rename",
        "renames",
        "replace",
        "rmdir",
        "symlink",
        "truncate",
        "unlink",
        "utime",
    ),
}
PATH_METHODS = {
    *("chmod", "hardlink_to", "lchmod", "mkdir", "rename", "rmdir", "symlink_to", "touch", "unlink", "write_bytes"),
    "write_text",
}
OPENS = {"open", "io.open", "codecs.open", "gzip.open", "bz2.open", "lzma.open", "tarfile.open"}
READS_ONLY = {"shutil.disk_usage", "shutil.get_terminal_size", "shutil.ignore_patterns", "shutil.which"}
STARTS_PROCESS = re.compile(
    r"os\.(exec[lv]p?e?|spawn[lv]p?e?|posix_spawnp?|fork|forkpty|system|popen)"
    r"|(subprocess|multiprocessing|pty)(\..*)?|asyncio\.create_subprocess_\w+|psutil\.Popen"
)
GIVEN_TO_A_SHELL = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
WRITING_FLAG = re.compile(r"O_(CREAT|WRONLY|RDWR|TRUNC|APPEND|TMPFILE)")
WRITING_MODE = re.compile(r"[rbtU]*[wax+][bt+]*([:|].*)?")


@dataclass(frozen=True)
class Offence:
    """A place that goes past a door."""

    line: int
    form: str
    """What it does: `os.rename` or `.write_text`, for example."""
    is_process: bool = False


class Lint(ast.NodeVisitor):
    """Collect what one module does past the doors."""

    def __init__(self) -> None:
        self.offences: list[Offence] = []
        self.imported: dict[str, str] = {}
        """What an imported name stands for: `sh` for `shutil` after `import shutil as sh`."""
        self.constants: dict[str, ast.expr] = {}

    def visit_Module(self, node: ast.Module) -> None:
        """Learn the module's constants first, since the flags of an open are often among them."""
        for statement in node.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                self.constants[statement.targets[0].id] = statement.value
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        """Learn the names of modules."""
        for alias in node.names:
            top = alias.name.partition(".")[0]
            self.imported[alias.asname or top] = alias.name if alias.asname else top
            self._judge_process(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Learn the names of what is in modules: `from os import rename` hides nothing."""
        for alias in node.names:
            self.imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            self._judge_process(node, f"{node.module}.{alias.name}")

    def visit_Call(self, node: ast.Call) -> None:
        """Judge a call by how it looks, since nothing more is known of it here."""
        self.generic_visit(node)
        name = self._full_name(node.func) or ""
        self._judge_function(node, name)
        is_function = name.startswith(("os.", "shutil.", DOOR))
        if isinstance(node.func, ast.Attribute) and not is_function:
            self._judge_method(node, node.func.attr)
        is_shell = any(word.arg == "shell" and not is_literally(word.value, value=False) for word in node.keywords)
        if is_shell or name in GIVEN_TO_A_SHELL:
            self._found(node, "shell")

    def _full_name(self, called: ast.expr) -> str | None:
        """Return the dotted name of what is called when it begins with an imported or builtin name."""
        if isinstance(called, ast.Name):
            return self.imported.get(called.id, called.id)
        if isinstance(called, ast.Attribute):
            if isinstance(called.value, ast.Name) and called.value.id not in self.imported:
                return None
            owner = self._full_name(called.value)
            return None if owner is None else f"{owner}.{called.attr}"
        return None

    def _judge_process(self, node: ast.AST, name: str) -> None:
        if STARTS_PROCESS.fullmatch(name):
            self._found(node, name, is_process=True)

    def _judge_function(self, node: ast.Call, name: str) -> None:
        module, _, function = name.partition(".")
        if name == "os.open":
            is_offence = self._may_write(node)
        elif name in OPENS:
            is_offence = is_writing_mode(argument(node, 1, "mode"))
        else:
            is_offence = (module == "os" and function in CHANGES_DISK) or (
                module == "shutil" and name not in READS_ONLY
            )
        if is_offence:
            self._found(node, name)
        self._judge_process(node, name)

    def _judge_method(self, node: ast.Call, method: str) -> None:
        is_path_replace = method == "replace" and (
            (len(node.args) == 1 and not node.keywords)
            or (not node.args and [word.arg for word in node.keywords] == ["target"])
        )
        if method in PATH_METHODS or is_path_replace or (method == "open" and opens_for_writing(node)):
            self._found(node, f".{method}")

    def _may_write(self, node: ast.Call) -> bool:
        """Tell whether an os.open writes to what lasts; flags that are not known here count as such."""
        path, flags = argument(node, 0, "path"), argument(node, 1, "flags")
        is_null_device = isinstance(path, ast.Attribute) and self._full_name(path) == "os.devnull"
        return not is_null_device and (flags is None or self._has_writing_flag(flags))

    def _has_writing_flag(self, flags: ast.expr) -> bool:
        for part in ast.walk(flags):
            if isinstance(part, ast.Name) and part.id not in self.imported:
                if part.id not in self.constants or self._has_writing_flag(self.constants[part.id]):
                    return True
            elif isinstance(part, ast.Name | ast.Attribute):
                name = self._full_name(part) or ""
                if WRITING_FLAG.fullmatch(name.rpartition(".")[2]):
                    return True
        return False

    def _found(self, node: ast.AST, form: str, *, is_process: bool = False) -> None:
        self.offences.append(Offence(getattr(node, "lineno", 0), form, is_process=is_process))


def argument(node: ast.Call, position: int, name: str) -> ast.expr | None:
    """Return an argument by its position or name."""
    for word in node.keywords:
        if word.arg == name:
            return word.value
    return node.args[position] if len(node.args) > position else None


def is_literally(node: ast.expr, *, value: object) -> bool:
    """Tell whether an expression is this literal."""
    return isinstance(node, ast.Constant) and node.value is value


def is_writing_mode(mode: ast.expr | None) -> bool:
    """Tell whether a mode writes; one that is not written out counts as such, since it cannot be read here."""
    if mode is None:
        return False
    return not isinstance(mode, ast.Constant) or WRITING_MODE.fullmatch(str(mode.value)) is not None


def opens_for_writing(node: ast.Call) -> bool:
    """Tell whether `x.open(...)` writes: by a literal in the place of the mode, since `x` may be no path at all."""
    mode = argument(node, 0, "mode")
    return isinstance(mode, ast.Constant) and is_writing_mode(mode)


def lint(text: str) -> list[Offence]:
    """Return what the text of a module does past the doors."""
    visitor = Lint()
    visitor.visit(ast.parse(text))
    return visitor.offences


def judge(module: str, text: str) -> list[str]:
    """Return the offences that the allow-list does not excuse, in words."""
    allowed = ALLOWED[module].forms if module in ALLOWED else frozenset()
    words = []
    for offence in lint(text):
        is_at_door = offence.is_process and module.startswith(PROCESS_DOORS)
        is_excused = is_at_door or offence.form in allowed
        if not is_excused:
            door = "effects/process.py" if offence.is_process else "effects/durable.py"
            words.append(f"{module}:{offence.line}: {offence.form} belongs behind {door}")
    return words


MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_every_module_goes_through_the_doors(module: str) -> None:
    """No module changes the disk or starts a process by itself, but for what is allowed above with a reason."""
    assert judge(module, (PACKAGE / module).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("module", ALLOWED)
def test_allowances_are_used(module: str) -> None:
    """What a module is allowed to do it does, so that the list cannot grow old; and there is a reason."""
    used = {offence.form for offence in lint((PACKAGE / module).read_text(encoding="utf-8"))}
    assert ALLOWED[module].forms <= used
    assert ALLOWED[module].reason


@pytest.mark.parametrize(
    ("text", "form"),
    [
        *((f"import os\nos.{name}(a, b)", f"os.{name}") for name in sorted(CHANGES_DISK)),
        *((f"path.{name}(a)", f".{name}") for name in sorted(PATH_METHODS)),
        ("import os as o\no.rename(a, b)", "os.rename"),
        ("from os import rename as mv\nmv(a, b)", "os.rename"),
        ("from pathlib import Path\nPath(a).unlink()", ".unlink"),
        ("from pathlib import Path\nPath.unlink(a)", ".unlink"),
        ("import pathlib\npathlib.Path(a).write_text(b)", ".write_text"),
        ("from settings import PATH\nPATH.unlink()", ".unlink"),
        ("from bulletproof.domain import layout\nlayout.HOME.touch()", ".touch"),
        ("(a / b).replace(c)", ".replace"),
        ("path.replace(target=c)", ".replace"),
        ("def f(durable):\n    durable.rename(a)", ".rename"),
        ("import shutil\nshutil.rmtree(a)", "shutil.rmtree"),
        ("from shutil import copytree\ncopytree(a, b)", "shutil.copytree"),
        ("import shutil as sh\nsh.move(a, b)", "shutil.move"),
        ("open(a, 'w')", "open"),
        ("open(a, mode='ab')", "open"),
        ("open(a, 'r+')", "open"),
        ("open(a, 'xb')", "open"),
        ("open(a, mode)", "open"),
        ("import io\nio.open(a, 'w')", "io.open"),
        ("import tarfile\ntarfile.open(a, 'w:gz')", "tarfile.open"),
        ("path.open('w')", ".open"),
        ("path.open(mode='rb+')", ".open"),
        ("import os\nos.open(a, os.O_CREAT)", "os.open"),
        ("import os\nos.open(a, os.O_CLOEXEC | os.O_WRONLY, 0o600)", "os.open"),
        ("import os\nos.open(a, os.O_RDWR, dir_fd=b)", "os.open"),
        ("import os\nFLAGS = os.O_RDONLY | os.O_TRUNC\nos.open(a, FLAGS)", "os.open"),
        ("from os import O_RDWR, open\nopen(a, O_RDWR)", "os.open"),
        ("import os\ndef f(flags):\n    os.open(a, flags)", "os.open"),
        ("import os\nos.open(path=a, flags=b)", "os.open"),
        ("import subprocess", "subprocess"),
        ("from subprocess import run", "subprocess.run"),
        ("import multiprocessing.pool", "multiprocessing.pool"),
        *((f"import os\nos.{name}(a)", f"os.{name}") for name in ("fork", "execvpe", "spawnlp", "posix_spawn")),
        ("from os import execvp", "os.execvp"),
        ("import asyncio\nasyncio.create_subprocess_exec(a)", "asyncio.create_subprocess_exec"),
        ("run(a, shell=True)", "shell"),
        ("import subprocess as s\ns.Popen(a, shell=is_shell)", "shell"),
        ("import os\nos.system(a)", "shell"),
    ],
)  # fmt: skip
def test_planted_offences_are_found(text: str, form: str) -> None:
    """Each way around a door is found, under whatever name it was imported, and has no excuse in another module."""
    assert form in [offence.form for offence in lint(text)]
    assert judge("operations/deploy.py", text) != []


@pytest.mark.parametrize(
    "text",
    [
        "text.replace('a', 'b')",
        "text.replace('a', 'b', 1)",
        "now.replace(tzinfo=UTC)",
        "from dataclasses import replace\nreplace(holder, step=step)",
        "import dataclasses\ndataclasses.replace(holder, step=step)",
        "known.pop('a'); found.remove(b); names.discard(c); names.copy()",
        "import os\nos.environ.copy(); os.path.join(a, b); os.stat(a); os.kill(a, b); os.fsync(a)",
        "import os\nos.open(a, os.O_RDONLY | os.O_DIRECTORY)",
        "import os\nFOLDER = os.O_RDONLY | os.O_DIRECTORY\nos.open(a, FOLDER | os.O_NOFOLLOW, dir_fd=b)",
        "open(a); open(a, 'rb'); open(a, encoding='utf-8'); path.open(); path.open('rb'); browser.open(address)",
        "import tarfile\ntarfile.open(a, 'r:gz')",
        "import shutil\nshutil.which('git'); shutil.disk_usage(a)",
        "from bulletproof.effects import durable\ndurable.rename(a, b); durable.remove(c)",
        "from bulletproof.effects.durable import rename\nrename(a, b)",
        "from bulletproof.effects import process\nprocess.run(a, folder=b)",
        "run(a, shell=False)",
        "import os\nos.open(os.devnull, os.O_RDWR)",
    ],
)
def test_innocent_code_is_not_found(text: str) -> None:
    """What only looks like it is no offence: strings, lists, dates, reading, and the doors themselves."""
    assert lint(text) == []


def test_the_doors_of_processes_are_no_doors_of_the_disk() -> None:
    """A module that may start processes may not write, nor the other way round, and a shell is allowed nowhere."""
    assert judge("effects/process.py", "import subprocess\nsubprocess.run(a)") == []
    assert judge("adapters/embedded/child.py", "import subprocess") == []
    assert judge("effects/process.py", "import os\nos.rename(a, b)") != []
    assert judge("effects/durable.py", "import subprocess") != []
    for module in ("effects/process.py", "adapters/embedded/child.py", "effects/durable.py"):
        assert judge(module, "run(a, shell=True)") == [f"{module}:1: shell belongs behind effects/durable.py"]
