"""systemd units: what a supervised process is for systemd, as pure functions from a ProcessSpec to text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bulletproof.domain.account import Sandbox
from bulletproof.domain.calendar import calendar_events
from bulletproof.domain.process import START_TIME, ProcessSpec, start_line

RUN = Path("/run")
"""Below it systemd makes and removes a unit's runtime folder by itself."""

_DRAIN = "X-DrainSeconds="
"""systemd leaves out what begins with X- (systemd.syntax(7))."""
_NUMBERED = re.compile(r"(web|worker|timer)-([0-9].*)")
_UNIT = re.compile(r"(?:-(web|worker|timer)@([0-9][A-Za-z0-9._-]*)|@([A-Za-z][A-Za-z0-9._-]*))\.service")


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How systemd deals with what crashes."""

    restart_seconds: float = 10.0
    """Before a crashed process is started again."""
    crashes: int = 8
    """So many within `row_seconds`, and systemd gives up."""
    row_seconds: float = 600.0


def unit_name(app: str, name: str) -> str:
    """The service of an app's process: `web-3` of `shop` is `shop-web@3.service`, its proxy `shop@proxy.service`."""
    numbered = _NUMBERED.fullmatch(name)
    return f"{app}-{numbered[1]}@{numbered[2]}.service" if numbered else f"{app}@{name}.service"


def process_name(app: str, unit: str) -> str | None:
    """The process whose service this is; None when it is none of the app's, though it may begin as one."""
    found = _UNIT.fullmatch(unit.removeprefix(app)) if unit.startswith(app) else None
    if found is None:
        return None
    return f"{found[1]}-{found[2]}" if found[1] else found[3]


def beside(unit: str, kind: str) -> str:
    """The timer or the socket that belongs to a service."""
    return f"{unit.removesuffix('.service')}.{kind}"


def service(
    app: str, process: ProcessSpec, environment_file: Path, patience: Patience, sandbox: Sandbox | None = None
) -> str:
    """The service unit of a process; its environment and settings are in a file that root alone can read."""
    unit = unit_name(app, process.name)
    lines = [
        "[Unit]",
        f"Description={_plain(process.name)} of {app}, by Bulletproof",
        *_limits(process, patience),
        *((f"Requires={beside(unit, 'socket')}", f"After={beside(unit, 'socket')}") if process.listen else ()),
        "",
        "[Service]",
        "Type=exec",
        *_said(process),
        f"ExecStart={' '.join(_word(word) for word in process.argv)}",
        f"WorkingDirectory={_path(process.folder)}",
        f"EnvironmentFile={_path(environment_file)}",
        f"StandardOutput=append:{_path(process.log)}",
        f"StandardError=append:{_path(process.log)}",
        f"UMask={'0007' if sandbox and sandbox.is_apps else '0027'}",
        f"KillSignal={process.stop_signal}",
        # The signal goes to the main process, since what it started is its own to end; SIGKILL then goes to all.
        f"KillMode={'control-group' if process.is_group else 'mixed'}",
        f"TimeoutStopSec={process.stop_seconds:g}",
        # What the kernel kills for want of memory is one worker, which its master replaces: the others go on.
        "OOMPolicy=continue",
        *_runtime(process),
        *_ending(process, patience),
        *(_confined(process, sandbox) if sandbox else ()),
    ]
    return "\n".join(lines) + "\n"


def timer(app: str, process: ProcessSpec) -> str:
    """The timer unit of a process with a schedule: nothing is caught up, and no run begins while one goes on."""
    lines = [
        "[Unit]",
        f"Description=when {_plain(process.name)} of {app} is due, by Bulletproof",
        f"{_DRAIN}{process.drain_seconds:g}",
        "",
        "[Timer]",
        *(f"OnCalendar={event}" for event in calendar_events(process.schedule)),
        "AccuracySec=1s",
        "Persistent=false",
    ]
    return "\n".join(lines) + "\n"


def drain_seconds(text: str) -> float:
    """How long a run may go on once its timer is stopped, as the timer unit notes it."""
    return next((float(line.removeprefix(_DRAIN)) for line in text.splitlines() if line.startswith(_DRAIN)), 0.0)


OURS = "# Written by bulletproof"
"""How every unit begins that outlives a boot."""


def facade(app: str, command: str, logs: tuple[Path, ...]) -> str:
    """The unit by which people and the boot know an app: it brings it up, shows its logs, and restarts it safely.

    `command` is our own program. What it follows is in the journal as well, under the app's name. The processes of the
    app are units of their own, so that this one can be restarted without a request lost.
    """
    ours = f"{command} --root /"
    return "\n".join(
        (
            f"{OURS}; it is written again with the next deployment.",
            "[Unit]",
            f"Description={app}, deployed by Bulletproof",
            "After=network.target local-fs.target",
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            "Type=exec",
            "Environment=BULLETPROOF_DETACHED=1",
            # It ends with 1 where nothing is to run, which is no failure; with 255 where it could not be done.
            f"ExecCondition=+{ours} start --as-unit --app {app}",
            f"ExecStart=/usr/bin/tail --quiet --lines=0 -F {' '.join(map(str, logs))}",
            f"ExecReload=+{ours} restart --app {app}",
            # Afterwards, so that it is done as well when a stop meets a start that has not ended.
            f"ExecStopPost=+{ours} stop --as-unit --app {app}",
            # A unit that is down cannot be stopped, so `systemctl stop` would leave an app running whose logs nobody
            # follows any more. A start that could not be done (255) is not tried again by itself.
            "Restart=on-abnormal",
            "RestartForceExitStatus=1 SIGHUP SIGINT SIGPIPE SIGTERM",
            "RestartSec=1",
            f"SyslogIdentifier={app}",
            # What only shows the logs may do nothing but read them; a plus is before what is ours, which no network of
            # its own would let see whether the proxy listens.
            *_SANDBOX,
            "CapabilityBoundingSet=CAP_DAC_READ_SEARCH",
            "RestrictAddressFamilies=",
            "RestrictAddressFamilies=none",
            "TimeoutStartSec=infinity",
            "TimeoutStopSec=900",
            "",
            "[Install]",
            "WantedBy=multi-user.target",
            "",
        )
    )


def target(app: str) -> str:
    """The target that is active while the app's host runs."""
    return f"[Unit]\nDescription={app} runs, by Bulletproof\n"


def socket(app: str, process: ProcessSpec, sandbox: Sandbox | None = None) -> str:
    """The socket unit of a process that listens: it outlives the process, with whoever waits in its queue."""
    lines = [
        "[Unit]",
        f"Description=what {_plain(process.name)} of {app} listens on, by Bulletproof",
        "",
        "[Socket]",
        f"ListenStream={_path(process.listen)}" if process.listen else "",
        "SocketMode=0660",
        *((f"SocketUser={sandbox.account.name}", f"SocketGroup={sandbox.account.group}") if sandbox else ()),
        "Backlog=4096",  # Linux' own bound, net.core.somaxconn
        "RemoveOnStop=yes",
        "TriggerLimitIntervalSec=0",  # a process that crashes must not close what others wait in
    ]
    return "\n".join(lines) + "\n"


def environment_file(environment: Mapping[str, str]) -> str:
    """What systemd reads back as these very variables (systemd.exec(5), EnvironmentFile=)."""
    return "".join(f"{name}={_quoted(value)}\n" for name, value in environment.items())


def _confined(process: ProcessSpec, sandbox: Sandbox) -> tuple[str, ...]:
    """Whom it runs as, and that it can do and write nothing but what it must (systemd.exec(5))."""
    account, writable = sandbox.account, [*sandbox.writable]
    capabilities = "CAP_NET_BIND_SERVICE" if sandbox.has_low_ports else ""
    return (
        f"User={account.name}",
        f"Group={account.group}",
        *((f"SupplementaryGroups={' '.join(sandbox.joins)}",) if sandbox.joins else ()),
        *(f"ReadWritePaths={_path(place)}" for place in writable),
        *_SANDBOX,
        *(("SystemCallFilter=@chown",) if sandbox.is_apps else ()),  # gunicorn gives its socket to itself
        f"AmbientCapabilities={capabilities}",
        f"CapabilityBoundingSet={capabilities}",
        *(("PrivateUsers=yes",) if not sandbox.has_low_ports and process.listen is None else ()),
    )


_SANDBOX = (
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateMounts=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectProc=invisible",
    "ProcSubset=pid",
    "NoNewPrivileges=yes",
    "RestrictSUIDSGID=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "LockPersonality=yes",
    "RemoveIPC=no",
    "KeyringMode=private",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
    "SystemCallErrorNumber=EPERM",
    "InaccessiblePaths=-/var/lib/bulletproof",
    "InaccessiblePaths=-/etc/bulletproof",
)
"""What an app that serves pages never needs.

Not MemoryDenyWriteExecute: cffi closures, numba and PCRE's compiler write code as they run. No IP address is denied:
apps send mail and ask other services. RemoveIPC would take shared memory from a second instance of the same user."""


def _limits(process: ProcessSpec, patience: Patience) -> tuple[str, ...]:
    if process.schedule:
        return ("StartLimitIntervalSec=0",)
    return (f"StartLimitIntervalSec={patience.row_seconds:g}", f"StartLimitBurst={patience.crashes}")


def _said(process: ProcessSpec) -> tuple[str, ...]:
    """Its log tells of each start; no start depends on that, nor on what the process is kept to."""
    line = start_line(process.name, START_TIME)
    return (f"ExecStartPre=-+/bin/date {_word(f'+{line}')}",) if line else ()


def _runtime(process: ProcessSpec) -> tuple[str, ...]:
    if process.runtime is None:
        return ()
    return (f"RuntimeDirectory={_word(str(process.runtime.relative_to(RUN)))}", "RuntimeDirectoryMode=0750")


def _ending(process: ProcessSpec, patience: Patience) -> tuple[str, ...]:
    if not process.schedule:
        return ("Restart=always", f"RestartSec={patience.restart_seconds:g}")
    return (f"RuntimeMaxSec={process.timeout_seconds:g}",) if process.timeout_seconds else ()


def _quoted(value: str) -> str:
    escaped = re.sub(r'(["\\$`])', r"\\\1", value)
    return f'"{escaped}"'


def _word(word: str) -> str:
    """A word of a command line: no specifier, no variable, no separator of commands (systemd.service(5))."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped.replace("%", "%%").replace("$", "$$")}"'


def _path(path: Path) -> str:
    return str(path).replace("%", "%%")


def _plain(words: str) -> str:
    return words.replace("%", "%%")
