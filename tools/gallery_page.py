"""Writes docs/guides/gallery.md and the pictures of `init` from the apps of the gallery; a test holds them together.

Run `python tools/gallery_page.py` after a change of what `init` says.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import workshop  # noqa: E402  tests/ is on no path of a tool
from gallery_apps import CASES, Case, complete  # noqa: E402

PAGE = ROOT / "docs" / "guides" / "gallery.md"
PICTURES = ROOT / "docs" / "images"
PICTURED = ("tutorial", "django", "processes", "two")
_COLUMNS = 112
_SECONDS = 60
_HEAD = """\
# The gallery: what becomes of an app

Each of these small apps is really initialised, deployed and asked by `tests/embedded/test_gallery.py`; this page
is written by `tools/gallery_page.py` from the same table. What `init` says of four of them is shown as it looks in a
terminal.

"""


def page(told: dict[str, str]) -> str:
    """The page, from what `init` said of each app."""
    rows = [f"| {case.title} | {_found(case, told[case.name])} | {_became(case)} |" for case in CASES]
    table = "\n".join(("| the app | what `init` finds, and where | then |", "|---|---|---|", *rows))
    titles = {case.name: case.title for case in CASES}
    shown = [
        f"## {titles[name][0].upper()}{titles[name][1:]}\n\n![{titles[name]}](../images/init-{name}.svg)\n"
        for name in PICTURED
    ]
    return "\n".join((f"{_HEAD}{table}\n", *shown))


def picture(screen: str, name: str) -> str:
    """A terminal's screen as SVG, the same whenever and wherever it is drawn."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(f"$ bulletproof init\n{screen}"))
    return console.export_svg(title="bulletproof init", unique_id=f"init-{name}")


def screen_of(case: Case) -> str:
    """What `init` prints on a terminal in the app's folder, with its colours."""
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder) / "myapp"
        workshop.commit(app, case.files)
        complete(app, case)
        workshop.commit(app, {})
        return _on_a_terminal(("init",), app).replace(str(app), "~/myapp")


def _on_a_terminal(words: tuple[str, ...], folder: Path) -> str:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, _COLUMNS, 0, 0))
    environment = {"PATH": os.defpath, "HOME": str(folder.parent), "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    argv = (sys.executable, "-P", "-m", "bulletproof", *words)
    with (
        closing(os.fdopen(ours, "rb", buffering=0)) as screen,
        # Without an input, so that a question is an error that lists what could be meant.
        subprocess.Popen(
            argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
        ) as child,
    ):
        os.close(theirs)
        shown = b""
        while chunk := _read(screen.fileno()):
            shown += chunk
        child.wait(_SECONDS)
    return shown.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # how Linux says that nobody writes to a terminal any more
        return b""


def _plain(screen: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", screen)


def _found(case: Case, screen: str) -> str:
    """The line of the entry, or the first sentence of the refusal."""
    lines = _plain(screen).splitlines()
    if not case.entry:
        reference = next(line for line in lines if line.startswith("error: "))
        return f"`{reference.removeprefix('error: ')}`: {lines[lines.index(reference) + 1].strip()}"
    place = next(index for index, line in enumerate(lines) if line.strip().startswith("entry"))
    _, entry, *seen = re.split(r"\s{2,}", lines[place].strip())
    return f"`{entry}`" + (f", `{' '.join(seen)}`".replace("|", "\\|") if seen else "")


def _became(case: Case) -> str:
    if case.refused and case.entry:
        return f"`deploy` refuses: `{case.refused}`"
    return "refused, with what to write" if case.refused else "deployed, answers"


def write() -> None:
    """Write the page and the pictures."""
    screens = {case.name: screen_of(case) for case in CASES}
    PAGE.write_text(page(screens), encoding="utf-8")
    PICTURES.mkdir(exist_ok=True)
    for name in PICTURED:
        (PICTURES / f"init-{name}.svg").write_text(picture(screens[name], name), encoding="utf-8")


if __name__ == "__main__":
    write()
