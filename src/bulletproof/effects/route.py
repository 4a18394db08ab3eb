"""The switch of where requests go, which is a symlink, and what the kernel says of the sockets on their way."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from bulletproof.effects import durable
from bulletproof.errors import Refused

LOOPBACK = "127.0.0.1"

_WALKS = 3
"""How often nothing must be found. The kernel hands out its list of sockets in pages and may skip one when others close
in between: 2 of 15,560 walks missed a standing connection while two processes opened and closed hundreds (Linux 6.18).
"""
_LISTENING = "0A"
"""TCP_LISTEN in the state column of /proc/net/tcp."""


def point(link: Path, target: Path) -> None:
    """Let `link` lead to `target`, in its folder or below it, from one instant on; nobody sees it missing."""
    durable.make_folder(link.parent, mode=0o700)
    durable.replace_symlink(link, target.relative_to(link.parent))


def leads_to(link: Path) -> Path | None:
    """Where `link` leads, whether or not something is there; None when there is no link."""
    try:
        return link.parent / os.readlink(link)  # noqa: PTH115  (the relative form, as it was stored)
    except FileNotFoundError:
        return None


def connections(path: Path) -> int:
    """How many connections to the server that bound this absolute path are open or wait to be accepted.

    Needs no root: it reads /proc/net/unix. A server's end of a connection is listed under the path that its listener
    was bound to: waiting ones in state 02 with inode 0, accepted ones in state 03, until the server has closed them,
    whatever the client did. The listener itself has the flag 00010000. It takes 0.2 ms, and 14 ms with 3,000 of them.
    """
    for _ in range(_WALKS):
        if found := _walk(path):
            return found
    return 0


def _walk(path: Path) -> int:
    # Num: RefCount Protocol Flags Type State Inode Path
    row = rb"^\S+: \S+ \S+ 00000000 \S+ \S+ +\d+ " + re.escape(bytes(path)) + rb"$"
    return len(re.findall(row, Path("/proc/net/unix").read_bytes(), re.MULTILINE))


def listeners(port: int) -> tuple[str, ...]:
    """The inodes of the sockets that listen at this port, on 127.0.0.1 or on all addresses of the machine."""
    loopback, every, every_6 = socket.inet_aton(LOOPBACK), bytes(4), bytes(16)
    tables = {"tcp": {_hex(loopback, port), _hex(every, port)}, "tcp6": {_hex(every_6, port)}}
    return tuple(inode for table, addresses in tables.items() for inode in _listeners(table, addresses))


def _hex(address: bytes, port: int) -> str:
    """As the kernel's tables have it: words in the machine's own order of bytes."""
    words = (address[start : start + 4] for start in range(0, len(address), 4))
    return f"{''.join(f'{int.from_bytes(word, sys.byteorder):08X}' for word in words)}:{port:04X}"


def _listeners(table: str, addresses: set[str] | None) -> Iterator[str]:
    """The inodes in a table of the kernel, of those on these addresses, or on any."""
    with contextlib.suppress(FileNotFoundError), Path(f"/proc/net/{table}").open(encoding="ascii") as rows:
        next(rows)
        for row in rows:
            columns = row.split()
            if columns[3] != _LISTENING:
                break  # those that listen come first, before thousands of connections
            if addresses is None or columns[1] in addresses:
                yield columns[9]


def may_listen(port: int, key: str = "port") -> bool:
    """Whether the port is free on 127.0.0.1. Raises Refused (`port-forbidden`) when this user may not have it."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what lingers of closed connections is no obstacle
        try:
            trial.bind((LOOPBACK, port))
        except PermissionError as error:
            raise Refused(
                "port-forbidden",
                f"this user may not listen on port {port}",
                hint=f"choose one above 1023 with `{key}` under [proxy] in bulletproof.toml",
            ) from error
        except OSError:
            return False
    return True


def is_listening_with(argument: str, port: int) -> bool:
    """Whether a process that was started with this argument listens on the port; it must be one that we may look at."""
    wanted = {f"socket:[{inode}]" for inode in listeners(port)}
    return any(not wanted.isdisjoint(_open_files(process)) for process in _started_with(argument))


def listening_with(argument: str) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """The processes started with this argument, each with the inodes of the TCP sockets that it listens on."""
    every = {f"socket:[{inode}]": inode for table in ("tcp", "tcp6") for inode in _listeners(table, None)}
    found = ((int(one.name), every.keys() & set(_open_files(one))) for one in _started_with(argument))
    return tuple((pid, tuple(every[name] for name in names)) for pid, names in found if names)


def program_on(port: int) -> str:
    """The name of the program that listens on the port, as far as this user may know it."""
    import psutil  # noqa: PLC0415  (with its walk through all processes it takes half a second, so only on trouble)

    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
            with contextlib.suppress(psutil.NoSuchProcess):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another program"


def _started_with(argument: str) -> Iterator[Path]:
    """The folders in /proc of the processes that have this argument."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if os.fsencode(argument) in (process / "cmdline").read_bytes().split(b"\0"):
                yield process


def _open_files(process: Path) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for name in os.listdir(process / "fd"):  # noqa: PTH208  (each may be closed before we look at it)
            with contextlib.suppress(FileNotFoundError):
                yield os.readlink(process / "fd" / name)  # noqa: PTH115  (what it says is no path)
