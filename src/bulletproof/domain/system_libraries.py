"""What the machine lacks, by what a failing build or import says; and the Debian package that has it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec


class MissingLibrary(msgspec.Struct, frozen=True, kw_only=True):
    """Something of the machine that a package needs."""

    words: str
    """Such as `the program pg_config is missing on this machine`."""
    package: str
    """The Debian package that has it; Ubuntu's has the same name. Empty when it is not known here."""

    @property
    def command(self) -> str:
        """What a person types to have it."""
        return f"apt install {self.package}" if self.package else "install what has it (apt-file search tells which)"


_COMPILER = "build-essential"
_PROGRAMS = {
    "pg_config": "libpq-dev",
    "mysql_config": "default-libmysqlclient-dev",
    "mariadb_config": "libmariadb-dev",
    "curl-config": "libcurl4-openssl-dev",
    "xml2-config": "libxml2-dev",
    "xslt-config": "libxslt1-dev",
    "krb5-config": "libkrb5-dev",
    "gdal-config": "libgdal-dev",
    "geos-config": "libgeos-dev",
    "freetype-config": "libfreetype-dev",
    "pkg-config": "pkg-config",
    "cmake": "cmake",
    "make": "make",
    "ninja": "ninja-build",
    "swig": "swig",
    "rustc": "rustc",
    "cargo": "cargo",
    "git": "git",
    "dot": "graphviz",
    "gfortran": "gfortran",
    "llvm-config": "llvm-dev",
    **dict.fromkeys(("gcc", "cc", "g++", "c++", "clang", "x86_64-linux-gnu-gcc", "aarch64-linux-gnu-gcc"), _COMPILER),
    **dict.fromkeys(("x86_64-linux-gnu-g++", "aarch64-linux-gnu-g++"), _COMPILER),
}
"""Debian packages by the program that they bring."""

_HEADERS = {
    "Python.h": "python3-dev",
    "ffi.h": "libffi-dev",
    "libpq-fe.h": "libpq-dev",
    "mysql.h": "default-libmysqlclient-dev",
    "sql.h": "unixodbc-dev",
    "sqlfront.h": "freetds-dev",
    "sybdb.h": "freetds-dev",
    "lber.h": "libldap-dev",
    "ldap.h": "libldap-dev",
    "sasl.h": "libsasl2-dev",
    "sasl/sasl.h": "libsasl2-dev",
    "libxml/xmlversion.h": "libxml2-dev",
    "libxml/xpath.h": "libxml2-dev",
    "libxslt/xslt.h": "libxslt1-dev",
    "xmlsec/xmlsec.h": "libxmlsec1-dev",
    "openssl/ssl.h": "libssl-dev",
    "openssl/opensslv.h": "libssl-dev",
    "curl/curl.h": "libcurl4-openssl-dev",
    "zlib.h": "zlib1g-dev",
    "bzlib.h": "libbz2-dev",
    "lzma.h": "liblzma-dev",
    "jpeglib.h": "libjpeg-dev",
    "png.h": "libpng-dev",
    "tiff.h": "libtiff-dev",
    "webp/decode.h": "libwebp-dev",
    "ft2build.h": "libfreetype-dev",
    "cairo.h": "libcairo2-dev",
    "graphviz/cgraph.h": "libgraphviz-dev",
    "magic.h": "libmagic-dev",
    "yaml.h": "libyaml-dev",
    "snappy.h": "libsnappy-dev",
    "leveldb/db.h": "libleveldb-dev",
    "db.h": "libdb-dev",
    "gmp.h": "libgmp-dev",
    "mpfr.h": "libmpfr-dev",
    "hdf5.h": "libhdf5-dev",
    "geos_c.h": "libgeos-dev",
    "proj.h": "libproj-dev",
    "gdal.h": "libgdal-dev",
    "event2/event.h": "libevent-dev",
    "ev.h": "libev-dev",
    "uv.h": "libuv1-dev",
    "librdkafka/rdkafka.h": "librdkafka-dev",
    "libmemcached/memcached.h": "libmemcached-dev",
    "krb5.h": "libkrb5-dev",
    "gssapi/gssapi.h": "libkrb5-dev",
    "re2/re2.h": "libre2-dev",
    "sodium.h": "libsodium-dev",
    "zmq.h": "libzmq3-dev",
    "portaudio.h": "portaudio19-dev",
    "sqlite3.h": "libsqlite3-dev",
    "pcap.h": "libpcap-dev",
    "systemd/sd-daemon.h": "libsystemd-dev",
    "boost/version.hpp": "libboost-dev",
}
"""Debian packages by the header that they bring."""

_DEPENDENCIES = {
    "cairo": "libcairo2-dev",
    "libffi": "libffi-dev",
    "libxml-2.0": "libxml2-dev",
    "libxslt": "libxslt1-dev",
    "xmlsec1": "libxmlsec1-dev",
    "openssl": "libssl-dev",
    "libpq": "libpq-dev",
    "mysqlclient": "default-libmysqlclient-dev",
    "libmariadb": "libmariadb-dev",
    "gobject-introspection-1.0": "libgirepository1.0-dev",
    "girepository-2.0": "libgirepository-2.0-dev",
    "glib-2.0": "libglib2.0-dev",
    "dbus-1": "libdbus-1-dev",
    "libsystemd": "libsystemd-dev",
    "libcurl": "libcurl4-openssl-dev",
    "hdf5": "libhdf5-dev",
    "openblas": "libopenblas-dev",
    "OpenBLAS": "libopenblas-dev",
    "lapack": "liblapack-dev",
    "zlib": "zlib1g-dev",
    "jpeg": "libjpeg-dev",
    "libjpeg": "libjpeg-dev",
    "libmagic": "libmagic-dev",
    "libsodium": "libsodium-dev",
    "libgvc": "libgraphviz-dev",
    "libavformat": "libavformat-dev",
    "freetype2": "libfreetype-dev",
}
"""Debian packages by the name that pkg-config knows them by."""

_LIBRARIES = {
    "libpq.so.5": "libpq5",
    "libmariadb.so.3": "libmariadb3",
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgobject-2.0.so.0": "libglib2.0-0",
    "libgobject-2.0-0": "libglib2.0-0",
    "libSM.so.6": "libsm6",
    "libICE.so.6": "libice6",
    "libXext.so.6": "libxext6",
    "libXrender.so.1": "libxrender1",
    "libX11.so.6": "libx11-6",
    "libxcb.so.1": "libxcb1",
    "libcairo.so.2": "libcairo2",
    "libpango-1.0.so.0": "libpango-1.0-0",
    "libpango-1.0-0": "libpango-1.0-0",
    "libpangocairo-1.0.so.0": "libpangocairo-1.0-0",
    "libpangoft2-1.0.so.0": "libpangoft2-1.0-0",
    "libpangoft2-1.0-0": "libpangoft2-1.0-0",
    "libharfbuzz.so.0": "libharfbuzz0b",
    "libgdk_pixbuf-2.0.so.0": "libgdk-pixbuf-2.0-0",
    "libfontconfig.so.1": "libfontconfig1",
    "libfreetype.so.6": "libfreetype6",
    "libjpeg.so.62": "libjpeg62-turbo",
    "libpng16.so.16": "libpng16-16",
    "libtiff.so.6": "libtiff6",
    "libopenjp2.so.7": "libopenjp2-7",
    "libwebp.so.7": "libwebp7",
    "libxml2.so.2": "libxml2",
    "libxslt.so.1": "libxslt1.1",
    "libxmlsec1.so.1": "libxmlsec1",
    "libxmlsec1-openssl.so.1": "libxmlsec1-openssl",
    "libmagic.so.1": "libmagic1",
    "libodbc.so.2": "libodbc2",
    "libsybdb.so.5": "libsybdb5",
    "libldap-2.5.so.0": "libldap-2.5-0",
    "libldap.so.2": "libldap2",
    "liblber-2.5.so.0": "libldap-2.5-0",
    "libcurl.so.4": "libcurl4",
    "libssl.so.3": "libssl3",
    "libffi.so.8": "libffi8",
    "libgomp.so.1": "libgomp1",
    "libgfortran.so.5": "libgfortran5",
    "libopenblas.so.0": "libopenblas0",
    "libatlas.so.3": "libatlas3-base",
    "libstdc++.so.6": "libstdc++6",
    "libgeos_c.so.1": "libgeos-c1v5",
    "libgdal.so.32": "libgdal32",
    "libproj.so.25": "libproj25",
    "libspatialindex_c.so.6": "libspatialindex6",
    "libsnappy.so.1": "libsnappy1v5",
    "libmemcached.so.11": "libmemcached11",
    "librdkafka.so.1": "librdkafka1",
    "libzmq.so.5": "libzmq5",
    "libsodium.so.23": "libsodium23",
    "libportaudio.so.2": "libportaudio2",
    "libsndfile.so.1": "libsndfile1",
    "libzbar.so.0": "libzbar0",
    "libkrb5.so.3": "libkrb5-3",
    "libgssapi_krb5.so.2": "libgssapi-krb5-2",
    "libsqlite3.so.0": "libsqlite3-0",
    "libbz2.so.1.0": "libbz2-1.0",
    "liblzma.so.5": "liblzma5",
    "libcrypt.so.1": "libcrypt1",
    "libnss3.so": "libnss3",
    "libcgraph.so.6": "libcgraph6",
    "libpcap.so.0.8": "libpcap0.8",
    "libasound.so.2": "libasound2",
    "libtesseract.so.5": "libtesseract5",
}
"""Debian packages (of Debian 12, where the name tells the version) by the shared library that they bring."""

_SHARED = r"(lib[\w.+-]+?\.so(?:\.\d+)*): cannot open shared object file"
_LOADED = r"cannot load library '(lib[\w.+-]+?)'"
_HEADER = r"fatal error: ([\w./+-]+\.h(?:pp)?): No such file or directory"
_FAMILIES = (
    (_SHARED, _LIBRARIES, "the library {} is missing on this machine"),
    (_LOADED, _LIBRARIES, "the library {} is missing on this machine"),
    (_HEADER, _HEADERS, "the header {} is missing on this machine"),
    (r"Dependency \"([\w.+-]+)\" not found", _DEPENDENCIES, "the library {} is missing on this machine"),
    (r"No package '([\w.+-]+)' found", _DEPENDENCIES, "the library {} is missing on this machine"),
    (r"Package ([\w.+-]+) was not found in the pkg-config", _DEPENDENCIES, "the library {} is missing on this machine"),
    (
        r"pkg-config --exists (\w+)' returned non-zero exit status 1\.",
        _DEPENDENCIES,
        "the library {} is missing on this machine",
    ),
    (r"No such file or directory: '([\w.+-]+)'", _PROGRAMS, "the program {} is missing on this machine"),
    (r"command '([\w.+-]+)' failed: No such file", _PROGRAMS, "the program {} is missing on this machine"),
    (r"([\w.+-]+): (?:command )?not found", _PROGRAMS, "the program {} is missing on this machine"),
    (r"([\w.+-]+) executable not found", _PROGRAMS, "the program {} is missing on this machine"),
    (r"Could not (?:find|run) ([\w.+-]+)", _PROGRAMS, "the program {} is missing on this machine"),
    (r"(?:linker|compiler) `([\w.+-]+)` not found", _PROGRAMS, "the program {} is missing on this machine"),
)
"""How a thing that is missing is told of, what brings it, and what is said; the first that is known counts."""

_SPECIAL = (
    (
        r"Please make sure the libxml2 and libxslt development packages",
        "libxml2 and libxslt",
        "libxml2-dev libxslt1-dev",
    ),
    (r"RequiredDependencyException: (jpeg|zlib)", "{}", "libjpeg-dev zlib1g-dev"),
    (r"Unknown compiler\(s\): \[", "a C compiler", _COMPILER),
    (r"can't find Rust compiler|Rust toolchain .* not (?:found|installed)", "the Rust compiler", "rustc cargo"),
    (r"CMake must be installed", "the program cmake", "cmake"),
)
"""Words of single packages."""


def missing_library(said: str) -> MissingLibrary | None:
    """What is missing by the words of a build or of an app that did not boot; None when they tell of nothing such."""
    return next(_known(said, _FAMILIES), None) or next(_special(said), None) or next(_unknown(said), None)


def missing_shared_library(said: str) -> MissingLibrary | None:
    """The shared library that an app could not load, by the end of its log; None when it tells of none."""
    return next(_known(said, _FAMILIES[:2]), None) or next(_unknown(said), None)


def blamed(words: str, log: Iterable[str], hint: str = "") -> tuple[str, str]:
    """The words and the hint for an app that failed; they name the shared library that it lacked, if the log does."""
    library = missing_shared_library("\n".join((*log, words)))
    if library is None:
        return words, hint
    return f"{words}: {library.words}", f"{library.command}, then: bulletproof deploy"


def _known(said: str, families: tuple[tuple[str, dict[str, str], str], ...]) -> Iterator[MissingLibrary]:
    for pattern, packages, words in families:
        for found in re.finditer(pattern, said):
            if found.group(1) in packages:
                yield MissingLibrary(words=words.format(found.group(1)), package=packages[found.group(1)])


def _special(said: str) -> Iterator[MissingLibrary]:
    for pattern, words, package in _SPECIAL:
        if found := re.search(pattern, said):
            yield MissingLibrary(words=f"{words.format(*found.groups())} is missing on this machine", package=package)


def _unknown(said: str) -> Iterator[MissingLibrary]:
    """A library or header that is certainly missing, though it is not known where it comes from."""
    for pattern, _, words in (_FAMILIES[0], _FAMILIES[2]):
        for found in re.finditer(pattern, said):
            yield MissingLibrary(words=words.format(found.group(1)), package="")
