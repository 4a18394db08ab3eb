"""A bulletproof.toml means what it says, and every error in one has a line, a column and plain words."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bulletproof.domain.config import App, AppConfig, Drain, Health, Keep, Server
from bulletproof.domain.toml import parse, schema
from bulletproof.domain.toml_places import find_places
from bulletproof.effects.project import Project, find_config, find_project, read_config
from bulletproof.errors import UsageError

TOP_KEYS = (
    "name, app, health, database, proxy, drain, keep, backup, check, migrations, hold, rehearsal, require, workers,"
    " timers, hosts"
)
APP_KEYS = "entry, server, workers, threads, timeout_seconds, user, persistent"
NAME_WORDS = "2 to 32 lower case letters, digits and dashes, a letter first and no dash last"


def failure(text: str, file_name: str = "bulletproof.toml", *, below: tuple[str, ...] = ()) -> UsageError:
    """The error that the text must raise."""
    with pytest.raises(UsageError) as caught:
        parse(text, file_name, below=below)
    assert caught.value.reference == "config-invalid"
    assert caught.value.exit_code == 2
    return caught.value


def test_only_the_name_is_needed() -> None:
    """A text with a name alone is the configuration of defaults."""
    assert parse('name = "myapp"') == AppConfig(name="myapp")


def test_every_key_is_taken() -> None:
    """Tables, dotted keys, inline tables and whole numbers for seconds all mean the same configuration."""
    text = """
    name = "myapp"
    health = { paths = ["/up", "/auth/login"], passes = 5 }
    drain.seconds = 4
    "keep".'releases' = 9
    [app]
    entry = "run:app"
    server = "uvicorn"
    workers = 2
    persistent = ["uploads", "static/img/"]
    """
    assert parse(text) == AppConfig(
        name="myapp",
        app=App(entry="run:app", server=Server.UVICORN, workers=2, persistent=("uploads", "static/img/")),
        health=Health(paths=("/up", "/auth/login"), passes=5),
        drain=Drain(seconds=4.0),
        keep=Keep(releases=9),
    )


LIMITS = [
    ("app.workers", ["1", "64"], ["0", "65"]),
    ("app.threads", ["1", "64"], ["0", "65"]),
    ("app.timeout_seconds", ["1", "3600"], ["0.9", "3600.1"]),
    (
        "app.persistent",
        ["[]", f'["{"a" * 200}"]', '["a/.b", "..c"]'],
        [f'["{"a" * 201}"]', '["/a"]', '["a//b"]', '["."]'],
    ),
    ("health.passes", ["1", "20"], ["0", "21"]),
    ("health.paths", [f'["/{"a" * 499}"]', "[]"], [f'["/{"a" * 500}"]', '["/a b"]', '["/a\\n"]']),
    ("health.deadline_seconds", ["0.1", "3600"], ["0.0", "3601"]),
    ("health.timeout_seconds", ["0.1", "3600"], ["0.0", "3601"]),
    ("database.file", [f'"{"a" * 100}"', '"..."'], [f'"{"a" * 101}"', '".."', '"."', '""', '"a\\n"']),
    ("database.setting", ['"_a1"'], ['"1a"', '""', '"A\\n"']),
    ("proxy.port", ["1", "65535"], ["0", "65536"]),
    ("drain.seconds", ["0.1", "3600"], ["0", "3601"]),
    ("drain.stop_seconds", ["0.1", "3600"], ["0", "3601"]),
    ("keep.releases", ["2", "100"], ["1", "101"]),
    ("require.free_disk_mib", ["0", str(1 << 30)], ["-1", str((1 << 30) + 1)]),
    ("require.free_memory_mib", ["0", str(1 << 30)], ["-1", str((1 << 30) + 1)]),
    ("app.entry", ['"a-b.c_1:d"', '"a:b()"'], ['"a:b(1)"', '"a:b.c"', '"a..b:c"', '"1:a"', '"a:b\\n"']),
    ("name", ['"ab"', f'"a{"-" * 30}9"'], ['"a-"', '"1a"', '"A1"', f'"a{"b" * 32}"']),
]


@pytest.mark.parametrize(
    ("key", "good", "bad"), LIMITS, ids=[f"{key} {number}" for number, (key, _, _) in enumerate(LIMITS)]
)
def test_the_limits_of_each_key_hold(key: str, good: list[str], bad: list[str]) -> None:
    """The last value inside each limit is taken, the first outside is refused."""
    name = "" if key == "name" else 'name = "aa"\n'
    for value in good:
        assert isinstance(parse(f"{name}{key} = {value}"), AppConfig)
    for value in bad:
        assert f"`{key.rpartition('.')[2]}` must be " in failure(f"{name}{key} = {value}").message


def test_a_byte_order_mark_and_windows_line_ends_change_nothing() -> None:
    """What an editor of Windows saves is read like any other file, and errors keep their places."""
    assert parse('\ufeffname = "myapp"\r\n[app]\r\nworkers = 2\r\n') == AppConfig(name="myapp", app=App(workers=2))
    assert failure('\ufeffnam = "myapp"\r\n').message.startswith("bulletproof.toml:1:1: ")
    assert failure('name = "myapp"\r\n[app]\r\nworkers = 0\r\n').message.startswith("bulletproof.toml:3:11: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", '1:1: `name` is missing; write name = "myapp" into the top of the file'),
        ('name = "x"', f'1:8: `name` must be {NAME_WORDS}, not the text "x"'),
        ('name = "my app"', f'1:8: `name` must be {NAME_WORDS}, not the text "my app"'),
        ('name = "myapp\\n"', f'1:8: `name` must be {NAME_WORDS}, not the text "myapp\\n"'),
        ("name = 7", f"1:8: `name` must be {NAME_WORDS}, not 7"),
        ('name = "aa"\nfoo = 1', f"2:1: `foo` is no key of the top of the file. Known there: {TOP_KEYS}"),
        (
            'name = "aa"\n[helth]\npasses = 1',
            f"2:2: `helth` is no key of the top of the file; did you mean `health`? Known there: {TOP_KEYS}",
        ),
        (
            'name = "aa"\n[app]\n  wokers = 3',
            f"3:3: `wokers` is no key of [app]; did you mean `workers`? Known there: {APP_KEYS}",
        ),
        (
            'name = "aa"\nrequire.Free-Disk-Mib = 3',
            (
                "2:9: `Free-Disk-Mib` is no key of [require]; did you mean `free_disk_mib`?"
                " Known there: free_disk_mib, free_memory_mib"
            ),
        ),
        ('name = "aa"\n[app]\n"a b" = 3', f'3:1: `"a b"` is no key of [app]. Known there: {APP_KEYS}'),
        (
            'name = "aa"\nworkers = 3',
            "2:11: `workers` must be a table, not 3; web processes are counted by `workers` of [app]",
        ),
        (
            'name = "aa"\n[workers.web]\ncommand = "x"',
            (
                "2:10: `web` must be named with at most 31 letters, digits, dashes and underscores, a letter first,"
                " and not web or release"
            ),
        ),
        (
            'name = "aa"\nworkers.mail.comand = "x"',
            (
                "2:14: `comand` is no key of [workers.mail]; did you mean `command`?"
                " Known there: command, count, stop_seconds, stop_signal, overlap"
            ),
        ),
        (
            'name = "aa"\n[workers]\nmail = "celery worker"',
            '3:8: `mail` must be a table; write mail = { command = "celery worker" }',
        ),
        (
            'name = "aa"\n[workers.mail]\ncommand = "python \'worker.py"',
            (
                '3:11: `command` must be a command, such as "python worker.py":'
                " a quote in it is not closed, or a backslash ends it"
            ),
        ),
        (
            'name = "aa"\n[timers.tidy]\nschedule = "61 * * * *"\ncommand = "x"',
            (
                '3:12: `schedule` must be five fields as in a crontab, such as "*/5 * * * *", or "@hourly":'
                " its minute cannot be 61"
            ),
        ),
        (
            'name = "aa"\nworkers.one.command = "x"\ntimers.one = { command = "x", schedule = "@daily" }',
            "3:8: `one` is the name of a worker as well",
        ),
        ('name = "aa"\n[app]\npasses = 3', "3:1: `passes` is a key of [health], not of [app]"),
        (
            'name = "aa"\n[keep]\n\ntimeout_seconds = 3',
            "4:1: `timeout_seconds` is a key of [app], [health], [check.own.NAME] and [timers.NAME], not of [keep]",
        ),
        (
            'name = "aa"\n[app]\nworkers = "three"',
            '3:11: `workers` must be a whole number from 1 to 64, not the text "three"',
        ),
        (
            'name = "aa"\n[app]\nworkers = "3"',
            '3:11: `workers` must be a whole number from 1 to 64, not the text "3"; a number stands without quotes',
        ),
        ('name = "aa"\napp.workers = 3.5', "2:15: `workers` must be a whole number from 1 to 64, not 3.5"),
        ('name = "aa"\napp.workers = true', "2:15: `workers` must be a whole number from 1 to 64, not true"),
        ('name = "aa"\napp.workers = 65', "2:15: `workers` must be a whole number from 1 to 64, not 65"),
        (
            'name = "aa"\napp.workers = 2024-01-01',
            "2:15: `workers` must be a whole number from 1 to 64, not a date or time",
        ),
        ('name = "aa"\n[app.workers]\nx = 1', "2:6: `workers` must be a whole number from 1 to 64, not a table"),
        (
            f'name = "aa"\napp.workers = 0x{"f" * 5000}',
            "2:15: `workers` must be a whole number from 1 to 64, not a number that large",
        ),
        ('name = "aa"\napp.timeout_seconds = 0.5', "2:23: `timeout_seconds` must be a number from 1 to 3600, not 0.5"),
        ('name = "aa"\ndrain.seconds = 0', "2:17: `seconds` must be a number above 0 and up to 3600, not 0"),
        ('name = "aa"\ndrain.seconds = nan', "2:17: `seconds` must be a number above 0 and up to 3600, not nan"),
        ('name = "aa"\ndrain.seconds = inf', "2:17: `seconds` must be a number above 0 and up to 3600, not inf"),
        ('name = "aa"\napp.server = "apache"', '2:14: `server` must be "gunicorn" or "uvicorn", not the text "apache"'),
        (
            'name = "aa"\napp.entry = "--config=x:y"',
            '2:13: `entry` must be "module:object" or "module:factory()", not the text "--config=x:y"',
        ),
        (
            'name = "aa"\napp.entry = "run"',
            '2:13: `entry` must be "module:object" or "module:factory()", not the text "run"',
        ),
        (
            'name = "aa"\nhealth.paths = "/up"',
            (
                '2:16: `paths` must be a list, each item a path that begins with /, such as "/up", not the text "/up";'
                ' write ["/up"]'
            ),
        ),
        (
            'name = "aa"\nhealth.paths = [\n  "/up",  # fine\n  "up",\n]',
            '4:3: item 2 of `paths` must be a path that begins with /, such as "/up", not the text "up"',
        ),
        (
            'name = "aa"\n[app]\npersistent = ["uploads", "../x"]',
            '3:26: item 2 of `persistent` must be a folder inside the source, such as "uploads", not the text "../x"',
        ),
        (
            'name = "aa"\n[database]\nfile = "a/b.db"',
            '3:8: `file` must be the name of a file, without a folder, such as "app.db", not the text "a/b.db"',
        ),
        (
            'name = "aa"\n[database]\nsetting = "A B"',
            '3:11: `setting` must be the name of an environment variable, not the text "A B"',
        ),
        ('name = "aa"\napp = "x"', '2:7: `app` must be a table, not the text "x"'),
        ('name = "aa"\n[[app]]\nworkers = 1', "2:3: `app` must be a table, not a list"),
        (
            'name = "aa"\napp = { workers = 2, threads = [1] }',
            "2:32: `threads` must be a whole number from 1 to 64, not a list",
        ),
        (
            "name = 'aa'\napp = { wrkers = 2 }",
            f"2:9: `wrkers` is no key of [app]; did you mean `workers`? Known there: {APP_KEYS}",
        ),
        ('name = "aa"\n"app" . \'workers\' = 0', "2:21: `workers` must be a whole number from 1 to 64, not 0"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, message: str) -> None:
    """Each kind of mistake names its line and column and says in words what would be right."""
    assert failure(text).message == f"bulletproof.toml:{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = aa", '1:8: this is no value; text stands in quotes: key = "value"'),
        ("name =", "1:7: a value is missing"),
        ("name =  # my app\n", "1:9: a value is missing"),
        ('name "aa"', "1:6: behind a key there must be an equals sign and a value"),
        ("= 3", "1:1: a line is `key = value`, a `[table]` or a `# comment`"),
        ('name = "aa', "1:8: a text is not closed: the quote at its end is missing"),
        ("name = 'aa\nx = 1", "1:8: a text is not closed: the quote at its end is missing"),
        ('x = 1\nname = """aa\n', "2:8: a text is not closed: the quote at its end is missing"),
        ("name = '''aa\n\n", "1:8: a text is not closed: the quote at its end is missing"),
        ('[app]\n"x = 1\n', "2:1: a text is not closed: the quote at its end is missing"),
        ("x = [1, [2, 3]", "1:5: a list is not closed: ] is missing"),
        ("x = [1 2]", "1:8: a list is not closed: ] is missing"),
        ('x = "a\x01"', "1:7: a control character stands here"),
        ("x = 'a\x01'", "1:7: a control character stands here"),
        ('name = "aa" x = 1', "1:13: the line should end here; a comment begins with #"),
        ('name = "aa"\n[app\n', "2:5: the name of a table stands in brackets of which the last is missing"),
        ('name = "aa"\n[app]\npersistent = ["a", "b"\n\n', "3:14: a list is not closed: ] is missing"),
        ('name = "a\\q"', "1:10: a backslash inside double quotes stands twice, or the text in single quotes"),
        ('x = """\na\\q"""', "2:2: a backslash inside double quotes stands twice, or the text in single quotes"),
        ("x = 2023-02-30", "1:5: there is no such date or time"),
        (f"[app]\nx = {'9' * 5000}", "2:5: the number has too many digits"),
        (f"x = {'[' * 5000}", "1:1: lists or tables are nested too deeply"),
        (
            'name = "aa"\n\nname = "bb"',
            "3:1: `name` stands here a second time; the first is in line 1, and one of them must go",
        ),
        (
            'name = "aa"\n[app]\nworkers = 1\n[keep]\n[app]\n',
            "5:2: `app` stands here a second time; the first is in line 2, and one of them must go",
        ),
        (
            'app.workers = 1\nname = "aa"\n[app]\n',
            "3:2: `app` stands here a second time; the first is in line 1, and one of them must go",
        ),
        (
            "app = { workers = 1, workers = 2 }",
            "1:22: `workers` stands here a second time; the first is in line 1, and one of them must go",
        ),
        (
            "app = { workers = 1 }\napp.threads = 2",
            "2:1: `app` stands here a second time; the first is in line 1, and one of them must go",
        ),
        (
            "[app]\nworkers = 1\nthreads = 2\nworkers = 3\n",
            "4:1: `workers` stands here a second time; the first is in line 2, and one of them must go",
        ),
    ],
)
def test_a_text_that_is_no_toml_is_told_with_the_place_of_the_break(text: str, message: str) -> None:
    """A slip of syntax, and a key or table that comes twice, name the place where a person must look."""
    assert failure(text).message == f"bulletproof.toml:{message}"


def test_all_errors_of_a_file_are_told_at_once() -> None:
    """The first error comes with its line marked, the others below it, and a missing name comes last."""
    error = failure("[app]\n\tworkers = 0\nthreads = 0\n")
    assert error.message == "bulletproof.toml:2:12: `workers` must be a whole number from 1 to 64, not 0"
    assert error.context == (
        "  2 |  workers = 0",
        "    |            ^",
        "bulletproof.toml:3:11: `threads` must be a whole number from 1 to 64, not 0",
        'bulletproof.toml:1:1: `name` is missing; write name = "myapp" into the top of the file',
    )
    assert error.hint == "correct line 2 of bulletproof.toml"


def test_a_line_is_shown_only_where_it_helps() -> None:
    """Nothing is shown of an empty line, and of a very long one neither the line nor a mark far to the right."""
    assert failure("\n\n").context == ()
    assert failure(f'name = "{"a" * 200}"').context[0] == f'  1 | name = "{"a" * 92}'
    assert failure(f'name = "aa"\nhealth = {{ paths = ["/{"a" * 90}", "b"] }}').context == ()


def test_what_is_shown_of_a_broken_text_cannot_steer_a_terminal() -> None:
    """An escape sequence in the file reaches neither the message nor the line that is shown."""
    for text in ('name = "\x1b[31m"', 'name = "\\u001b[31m"', '"\\u001b[2J" = 1\nname = "aa"', "\x1b = 1"):
        error = failure(text)
        assert "\x1b" not in "".join((error.message, *error.context))


def test_a_table_of_pyproject_is_named_as_it_stands_there() -> None:
    """Below [tool.bulletproof] places are those of the whole file and tables have their whole names."""
    text = '[project]\nname = "x"\nfoo = 1\n[tool.bulletproof]\nname = "aa"\n[tool.bulletproof.app]\nwokers = 1\n'
    error = failure(text, "pyproject.toml", below=("tool", "bulletproof"))
    assert error.message == (
        "pyproject.toml:7:1: `wokers` is no key of [tool.bulletproof.app]; did you mean `workers`?"
        f" Known there: {APP_KEYS}"
    )
    moved = failure(text.replace("wokers", "name"), "pyproject.toml", below=("tool", "bulletproof"))
    assert moved.message == "pyproject.toml:7:1: `name` is a key of [tool.bulletproof], not of [tool.bulletproof.app]"
    missing = failure("\n[tool.bulletproof]\n", "pyproject.toml", below=("tool", "bulletproof"))
    assert missing.message == 'pyproject.toml:2:7: `name` is missing; write name = "myapp" into [tool.bulletproof]'
    assert parse(text.replace("wokers = 1", ""), below=("tool", "bulletproof")) == AppConfig(name="aa")


def test_the_schema_tells_every_key() -> None:
    """Editors learn each table and key with its limits, and that no other may stand there."""
    made = json.loads(json.dumps(schema()))
    definitions = made["$defs"]
    assert list(definitions["AppConfig"]["properties"]) == TOP_KEYS.split(", ")
    assert list(definitions["App"]["properties"]) == APP_KEYS.split(", ")
    assert definitions["AppConfig"]["required"] == ["name"]
    assert all(one["additionalProperties"] is False for one in definitions.values() if one.get("type") == "object")
    assert definitions["App"]["properties"]["workers"] == {"type": "integer", "minimum": 1, "maximum": 64, "default": 3}
    assert re.search(definitions["AppConfig"]["properties"]["name"]["pattern"], "myapp")


# --- the places, for any document -------------------------------------------------------------------------------------

KEY_MARK, VALUE_MARK = "\ue000", "\ue001"
BARE = re.compile(r"[A-Za-z0-9_-]+")

Keys = tuple[str | int, ...]
Table = dict[str, object]

names = st.one_of(
    st.sampled_from(["a", "b", "c-1", "_", "workers"]),
    st.text(st.characters(blacklist_categories=("Cs", "Co", "Cc")), max_size=4),
)
texts = st.text(
    st.one_of(st.sampled_from("\"'\\#=[]{},\n \t"), st.characters(blacklist_categories=("Cs", "Co", "Cc"))), max_size=8
)
scalars = st.one_of(texts, st.integers(-9, 99), st.booleans(), st.floats(0.5, 9, width=16))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=6,
)
tables = st.dictionaries(names, values, max_size=5)

noise = ("", "", "", "\n", "  ", "# [a]\n", "\t# x = {\n", "#'''\n")
blanks = ("", "", " ", "\t ")
comments = ("", "", " # b = 1", "#]")
styles = ("header", "inline", "dotted")
quotings = ("bare", "basic", "literal", "long", "long-literal")


class Writer:
    """Writes a document in any of the ways that TOML allows, with a mark before each key and value."""

    def __init__(self, seed: int) -> None:
        self.draw = Random(seed).choice
        self.keys: list[Keys] = []
        """The way to each key, in the order of the marks."""
        self.values: list[Keys] = []

    def document(self, table: Table) -> str:
        """The text of the whole."""
        return "".join(self._section(table, (), ""))

    def _section(self, table: Table, path: Keys, prefix: str) -> Iterator[str]:
        """Lines of the table itself, and behind them those of tables with a header."""
        later: list[tuple[str, object]] = []
        for key, value in table.items():
            yield self.draw(noise)
            is_tables = isinstance(value, list) and value and all(isinstance(one, dict) for one in value)
            if (isinstance(value, dict) or is_tables) and self.draw(styles) == "header":
                later.append((key, value))
            else:
                yield f"{self._pair(key, value, path)}{self.draw(comments)}\n"
        for key, value in later:
            yield self.draw(noise)
            yield from self._headed(key, value, path, prefix)

    def _headed(self, key: str, value: object, path: Keys, prefix: str) -> Iterator[str]:
        token = self._token(key)
        plain = f"{prefix}{token}"
        if isinstance(value, dict):
            self.keys.append((*path, key))
            yield f"[{prefix}{KEY_MARK}{token}]{self.draw(comments)}\n"
            yield from self._section(value, (*path, key), f"{plain}.")
            return
        for index, element in enumerate(cast("list[Table]", value)):
            self.keys.append((*path, key, index))
            yield f"[[{prefix}{KEY_MARK}{token}]]\n"
            yield from self._section(element, (*path, key, index), f"{plain}.")

    def _pair(self, key: str, value: object, path: Keys) -> str:
        token, before, after = self._token(key), self.draw(blanks), self.draw(blanks)
        here = (*path, key)
        self.keys.append(here)
        if isinstance(value, dict) and len(value) == 1 and self.draw(styles) == "dotted":
            (inner, inner_value), *_ = value.items()
            return f"{KEY_MARK}{token}{before}.{after}{self._pair(inner, inner_value, here)}"
        self.values.append(here)
        return f"{KEY_MARK}{token}{before}={after}{VALUE_MARK}{self._value(value, here)}"

    def _value(self, value: object, path: Keys) -> str:
        if isinstance(value, dict):
            pairs = [
                f"{self.draw(blanks)}{self._pair(key, one, path)}{self.draw(blanks)}" for key, one in value.items()
            ]
            return f"{{{','.join(pairs)}}}"
        if isinstance(value, list):
            return f"[{''.join(self._items(value, path))}{self.draw(noise)}]"
        return self._text(value) if isinstance(value, str) else json.dumps(value)

    def _items(self, items: list[object], path: Keys) -> Iterator[str]:
        for index, item in enumerate(items):
            self.values.append((*path, index))
            comma = "," if index < len(items) - 1 else self.draw(("", ","))
            yield f"{self.draw(noise)}{VALUE_MARK}{self._value(item, (*path, index))}{self.draw(blanks)}{comma}"

    def _token(self, key: str) -> str:
        quoting = self.draw(quotings)
        if quoting == "bare" and BARE.fullmatch(key):
            return key
        if quoting == "literal" and "'" not in key:
            return f"'{key}'"
        return json.dumps(key, ensure_ascii=quoting == "basic" and max(key, default="") <= "\uffff")

    def _text(self, value: str) -> str:
        quoting = self.draw(quotings)
        if quoting == "literal" and not set(value) & set("'\n"):
            return f"'{value}'"
        if quoting == "long-literal" and "'" not in value:
            return f"'''\n{value}'''"
        escaped = value.replace("\\", "\\\\")
        if quoting == "long" and '"""' not in value:
            return f'"""\n{escaped}"""' if not value.endswith('"') else json.dumps(value, ensure_ascii=False)
        return json.dumps(value, ensure_ascii=False)


def unmarked(text: str, marks: str) -> tuple[str, list[int]]:
    """The text without any marks, and where those asked for stood."""
    plain: list[str] = []
    offsets = []
    for sign in text:
        if sign == marks:
            offsets.append(len(plain))
        elif sign not in {KEY_MARK, VALUE_MARK}:
            plain.append(sign)
    return "".join(plain), offsets


def place(text: str, offset: int) -> str:
    """The line and column of an offset, counted by hand."""
    lines = text[:offset].split("\n")
    return f"{len(lines)}:{len(lines[-1]) + 1}"


@settings(max_examples=300, deadline=None, database=None)
@given(seed=st.integers(0), table=tables)
def test_the_place_of_every_key_and_value_is_found_however_a_document_is_written(seed: int, table: Table) -> None:
    """Quoted and dotted keys, inline tables, arrays of tables, long texts and comments are all seen through."""
    writer = Writer(seed)
    marked = writer.document(table)
    text, key_offsets = unmarked(marked, KEY_MARK)
    _, value_offsets = unmarked(marked, VALUE_MARK)
    assert tomllib.loads(text) == table
    found = find_places(text)
    assert not found.again
    for keys, offset in zip(writer.keys, key_offsets, strict=True):
        assert found.keys[keys] == offset, keys
    for keys, offset in zip(writer.values, value_offsets, strict=True):
        assert found.values[keys] == offset, keys


GOOD: dict[str, st.SearchStrategy[object]] = {
    "app.entry": st.sampled_from(["run:app", "a.b:make()"]),
    "app.workers": st.integers(1, 64),
    "app.persistent": st.lists(st.sampled_from(["a", "b/c"]), max_size=3),
    "health.paths": st.lists(st.sampled_from(["/", "/up"]), max_size=3),
    "health.deadline_seconds": st.floats(1, 3600),
    "database.file": st.sampled_from(["a.db", "'\"#.db"]),
    "proxy.port": st.integers(1, 65535),
    "keep.releases": st.integers(2, 100),
}
BAD: dict[str, object] = {
    "app.entry": "run",
    "app.workers": "three",
    "app.persistent": {"a": 1},
    "health.paths": 1,
    "health.deadline_seconds": [1],
    "database.file": "a/b",
    "proxy.port": 0,
    "keep.releases": True,
}


@settings(max_examples=150, deadline=None, database=None)
@given(data=st.data(), kind=st.sampled_from(["unknown key", "bad value", "bad item"]))
def test_one_planted_error_is_told_with_its_own_place(data: st.DataObject, kind: str) -> None:
    """In any valid document the planted key or value, and nothing else, is what the message points at."""
    chosen = data.draw(st.lists(st.sampled_from(sorted(GOOD)), unique=True, min_size=1))
    table: dict[str, object] = {"name": "myapp"}
    for key in chosen:
        first, second = key.split(".")
        cast("Table", table.setdefault(first, {}))[second] = data.draw(GOOD[key])
    victim: Keys = tuple(data.draw(st.sampled_from(chosen)).split("."))
    inner = cast("Table", table[str(victim[0])])
    if kind == "unknown key":
        victim = (victim[0], "wörkers")
        inner["wörkers"] = data.draw(scalars)
    elif kind == "bad value":
        inner[str(victim[1])] = BAD[".".join(map(str, victim))]
    else:
        victim = ("health", "paths", 1)
        cast("Table", table.setdefault("health", {}))["paths"] = ["/", "up", "/up"]
    writer = Writer(data.draw(st.integers(0)))
    marked = writer.document(table)
    mark, paths = (KEY_MARK, writer.keys) if kind == "unknown key" else (VALUE_MARK, writer.values)
    text, offsets = unmarked(marked, mark)
    if victim not in paths:  # a table with a header line where a value should be: its name is the place
        text, offsets = unmarked(marked, KEY_MARK)
        paths = writer.keys
    planted = place(text, dict(zip(paths, offsets, strict=True))[victim])
    assert failure(text).message.startswith(f"bulletproof.toml:{planted}: ")
    assert not [line for line in failure(text).context if line.startswith("bulletproof.toml")]


@settings(max_examples=300, deadline=None, database=None)
@example(text='"\\\n\n')
@given(text=st.text(st.sampled_from("name=\"'[]{}.,#\\\n 1-a\ufeff\r"), max_size=40))
def test_no_text_whatsoever_ends_in_anything_but_a_configuration_or_words(text: str) -> None:
    """Whatever stands in the file, the outcome is an AppConfig or a UsageError with a place inside the text."""
    try:
        parse(text)
    except UsageError as error:
        line, column = map(int, error.message.split(":")[1:3])
        lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
        assert 1 <= line <= len(lines)
        assert 1 <= column <= len(lines[line - 1]) + 1


# --- the file on disk -------------------------------------------------------------------------------------------------


def refusal(folder: Path) -> UsageError:
    """The error of a project's folder."""
    with pytest.raises(UsageError) as caught:
        find_project(folder)
    return caught.value


def test_the_configuration_is_found_from_a_folder_inside_the_repository(tmp_path: Path) -> None:
    """A folder below the git root belongs to the project whose configuration lies above it."""
    (tmp_path / "app" / "models").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / "bulletproof.toml").write_text('name = "aa"\n')
    config, folder, path = found = find_project(tmp_path / "app" / "models")
    assert found == Project(AppConfig(name="aa"), tmp_path, tmp_path / "bulletproof.toml")
    assert (config.name, folder, path) == ("aa", found.folder, found.path)


def test_nothing_above_the_git_root_counts(tmp_path: Path) -> None:
    """A configuration above the repository is another project's."""
    repository = tmp_path / "repository"
    (repository / ".git").mkdir(parents=True)
    (tmp_path / "bulletproof.toml").write_text('name = "aa"\n')
    error = refusal(repository)
    assert (error.reference, error.hint) == ("config-missing", "bulletproof init")


def test_outside_of_git_only_parents_below_the_home_folder_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's file in a shared folder, or one in the home folder itself, never says what is deployed."""
    home = tmp_path / "home"
    deep = home / "myapp" / "sub"
    deep.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for stranger in (tmp_path, home):
        (stranger / "bulletproof.toml").write_text('name = "stranger"\n')
    assert refusal(deep).reference == "config-missing"
    (home / "myapp" / "bulletproof.toml").write_text('name = "mine"\n')
    assert find_project(deep).config.name == "mine"
    assert find_project(home).config.name == "stranger"
    (home / "bulletproof.toml").unlink()
    assert refusal(home).reference == "config-missing"
    shared = tmp_path / "shared"
    shared.mkdir()
    assert refusal(shared).reference == "config-missing"


def test_pyproject_can_hold_the_configuration(tmp_path: Path) -> None:
    """[tool.bulletproof] is a configuration, a pyproject.toml without it is none, even a broken one."""
    file = tmp_path / "pyproject.toml"
    file.write_text('\ufeff[tool.bulletproof]\nname = "aa"\napp.workers = 2\n', encoding="utf-8")
    assert find_project(tmp_path) == Project(AppConfig(name="aa", app=App(workers=2)), tmp_path, file)
    for other in ('[project]\nname = "bulletproof"\n', "[tool.ruff\n", "tool = 3 # bulletproof\n"):
        file.write_text(other)
        assert refusal(tmp_path).reference == "config-missing"
    file.write_text("[tool.bulletproof]\nname = aa\n")
    assert refusal(tmp_path).message.startswith("pyproject.toml:2:8: this is no value")


def test_two_configurations_in_one_folder_are_refused(tmp_path: Path) -> None:
    """Which of two would hold is not guessed."""
    (tmp_path / "bulletproof.toml").write_text('name = "aa"\n')
    (tmp_path / "pyproject.toml").write_text('[tool.bulletproof]\nname = "bb"\n')
    assert refusal(tmp_path).reference == "config-twice"


def test_a_file_that_is_not_utf_8_is_told_with_its_first_bad_byte(tmp_path: Path) -> None:
    """A name in Latin-1 has a line and a column like any other error."""
    file = tmp_path / "bulletproof.toml"
    file.write_bytes('\ufeffname = "aa"\r\n# Größe: '.encode() + "ä\n".encode("latin-1"))
    assert refusal(tmp_path).message == "bulletproof.toml:2:10: the file is not UTF-8 text from here on"
    assert refusal(tmp_path).reference == "config-invalid"


def test_what_is_no_readable_file_is_told_in_words(tmp_path: Path) -> None:
    """A folder, a pipe, a link to nowhere and a huge file in the configuration's place are errors in words."""
    file = tmp_path / "bulletproof.toml"
    file.mkdir()
    assert refusal(tmp_path).message == f"{file} is a folder, not a configuration file"
    file.rmdir()
    os.mkfifo(file)
    assert refusal(tmp_path).message == f"{file} is no plain file, not a configuration file"
    file.unlink()
    file.symlink_to("nowhere")
    assert refusal(tmp_path).message == f"{file} is a link that leads nowhere"
    file.unlink()
    file.write_bytes(b"#" * ((1 << 20) + 1))
    assert refusal(tmp_path).reference == "config-unreadable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_nobody_may_read_is_told_in_words(tmp_path: Path) -> None:
    """A missing permission is an error in words, for the file and for its folder."""
    file = tmp_path / "bulletproof.toml"
    file.write_text('name = "aa"\n')
    file.chmod(0)
    assert refusal(tmp_path).message == f"{file} cannot be read: Permission denied"
    tmp_path.chmod(0)
    try:
        assert refusal(tmp_path).reference == "folder-unreadable"
    finally:
        tmp_path.chmod(0o700)


def test_a_missing_file_and_folder_are_told_in_words(tmp_path: Path) -> None:
    """No folder, no file, and a file that went away each have their own words."""
    assert refusal(tmp_path / "nowhere").reference == "folder-missing"
    assert refusal(tmp_path).message == f"there is no bulletproof.toml in {tmp_path} or above"
    assert find_config(tmp_path) is None
    with pytest.raises(UsageError) as caught:
        read_config(tmp_path / "bulletproof.toml")
    assert caught.value.reference == "config-missing"
