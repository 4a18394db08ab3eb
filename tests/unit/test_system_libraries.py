"""What a machine lacks, by what builds and apps really said on one that lacked it."""

from __future__ import annotations

import re

import pytest

from bulletproof.domain import system_libraries
from bulletproof.domain.system_libraries import missing_library, missing_shared_library
from bulletproof.effects.uv import failure

# Cut from what uv 0.13.9 printed on Debian 12, of psycopg2 2.9.13, mysqlclient 2.3.2, cffi 2.1.1, pycairo 1.29.2,
# python-ldap 3.4.8, pyodbc 5.5.0 and pycurl 7.49.0.
PSYCOPG = """\
error: Failed to build `psycopg2==2.9.13`
  cause: The build backend returned an error
  cause: Call to `setuptools.build_meta.get_requires_for_build_wheel` failed (exit status: 1)

         [stderr]
         Error: pg_config executable not found.

         pg_config is required to build psycopg2 from source.  Please add the directory
         containing pg_config to the $PATH or specify the full executable path with the
"""
MYSQL = """\
error: Failed to build `mysqlclient==2.3.2`
         [stdout]
         Trying pkg-config --exists mysqlclient
         Command 'pkg-config --exists mysqlclient' returned non-zero exit status 1.
         [stderr]
         Exception: Can not find valid pkg-config name.
"""
MYSQL_BARE = """\
error: Failed to build `mysqlclient==2.3.2`
         [stdout]
         Trying pkg-config --exists mysqlclient
         Command 'pkg-config --exists mysqlclient' returned non-zero exit status 127.
         [stderr]
         /bin/sh: 1: pkg-config: not found
"""
CFFI = """\
error: Failed to build `cffi==2.1.1`
         error: [Errno 2] No such file or directory: 'x86_64-linux-gnu-gcc'
"""
CAIRO = """\
error: Failed to build `pycairo==1.29.2`
         Run-time dependency cairo found: NO  (tried pkg-config and cmake)

         ../cairo/meson.build:31:12: ERROR: Dependency "cairo" not found (tried pkg-config and cmake)
"""
LDAP = """\
error: Failed to build `python-ldap==3.4.8`
         Modules/common.h:15:10: fatal error: lber.h: No such file or directory
            15 | #include <lber.h>
hint: This error likely indicates that you need to install a library that provides `lber.h` for `python-ldap@3.4.8`
"""
ODBC = """\
error: Failed to build `pyodbc==5.5.0`
         src/pyodbc.h:52:10: fatal error: sql.h: No such file or directory
"""
CURL = """\
error: Failed to build `pycurl==7.49.0`
         FileNotFoundError: [Errno 2] No such file or directory: 'curl-config'
         ConfigurationError: Could not run curl-config: [Errno 2] No such file or directory: 'curl-config'
"""


@pytest.mark.parametrize(
    ("said", "package", "thing"),
    [
        (PSYCOPG, "libpq-dev", "the program pg_config"),
        (MYSQL, "default-libmysqlclient-dev", "the library mysqlclient"),
        (MYSQL_BARE, "pkg-config", "the program pkg-config"),
        (CFFI, "build-essential", "the program x86_64-linux-gnu-gcc"),
        (CAIRO, "libcairo2-dev", "the library cairo"),
        (LDAP, "libldap-dev", "the header lber.h"),
        (ODBC, "unixodbc-dev", "the header sql.h"),
        (CURL, "libcurl4-openssl-dev", "the program curl-config"),
        ("error: Failed to build `a==1`\nfatal error: Python.h: No such file or directory", "python3-dev", "Python.h"),
        ("error: Failed to build `a==1`\nfatal error: ffi.h: No such file or directory", "libffi-dev", "ffi.h"),
        (
            "error: Failed to build `a==1`\nError: Please make sure the libxml2 and libxslt development packages are",
            "libxml2-dev libxslt1-dev",
            "libxml2 and libxslt",
        ),
    ],
)
def test_a_failing_build_names_the_debian_package(said: str, package: str, thing: str) -> None:
    """One sentence says which requirement lacks what, and the hint is the command that installs it."""
    error = failure(said)
    requirement = re.findall(r"`([^`]+)`", said)[0]
    assert error.message.startswith(f"requirement `{requirement}` could not be built: ")
    assert thing in error.message
    assert error.message.endswith("missing on this machine")
    assert error.hint == f"apt install {package}, then: bulletproof deploy"


def test_a_shared_library_that_is_not_there_is_named() -> None:
    """By the log of an app that did not boot; one that the table does not know is named without a package."""
    said = "ImportError: libpq.so.5: cannot open shared object file: No such file or directory"
    known = missing_shared_library(f"Traceback (most recent call last):\n{said}")
    assert known is not None
    assert (known.words, known.command) == ("the library libpq.so.5 is missing on this machine", "apt install libpq5")
    unknown = missing_shared_library(said.replace("libpq.so.5", "libown.so.1"))
    assert unknown is not None
    assert unknown.package == ""
    assert "libown.so.1" in unknown.words
    gobject = "OSError: cannot load library 'libgobject-2.0-0': libgobject-2.0-0: cannot open shared object file"
    pango = missing_library(gobject)
    assert pango is not None
    assert pango.package == "libglib2.0-0"


@pytest.mark.parametrize(
    "said",
    [
        "ModuleNotFoundError: No module named 'flask'",
        "FileNotFoundError: [Errno 2] No such file or directory: 'settings.toml'",
        "sh: 1: tail: not found",
        "GET /up 404 page not found",
    ],
)
def test_other_failures_are_not_blamed_on_the_machine(said: str) -> None:
    """A file, a module or a page that is missing is no library."""
    assert missing_library(said) is None
    assert missing_shared_library(said) is None


def test_every_entry_of_the_tables_is_a_package_name() -> None:
    """Debian's names are lower case, and nothing in the tables needs quoting in a shell."""
    build = (*system_libraries._PROGRAMS.values(), *system_libraries._HEADERS.values())
    names = {*build, *system_libraries._DEPENDENCIES.values(), *system_libraries._LIBRARIES.values()}
    assert {name for name in names if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name)} == set()
