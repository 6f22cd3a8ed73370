"""The verb ``unit``: units for systemd. With one the daemon is a service, hardened as far as flows allow; the other is
the socket beside it, which holds who connects while the daemon is restarted."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from . import render

#: What of the system no flow has a reason to change. Flows read and write files, connect and start programs: paths they
#: need besides are named with ReadWritePaths= in a drop-in.
_HARDENED = """UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallFilter=capset prlimit64 sched_setaffinity setpriority setrlimit
SystemCallErrorNumber=EPERM
"""
_UNIT = """[Unit]
Description=Headrace, flows from git
{after}
[Service]
Type=notify
WatchdogSec=30
{user}StateDirectory=headrace
StateDirectoryMode=0700
ExecStart={command} up
ExecReload={command} reload
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2
KillMode=mixed
TimeoutStopSec=90
Delegate=memory pids
{hardened}
[Install]
WantedBy={target}
"""
#: As many may wait as a restart of some seconds brings; more is refused by the kernel.
_SOCKET = """[Unit]
Description=Headrace, where it listens

[Socket]
ListenStream=127.0.0.1:8420
Backlog=1024

[Install]
WantedBy=sockets.target
"""


@click.command()
@click.option("--socket", "for_socket", is_flag=True, help="The socket beside it: nobody is refused during a restart.")
@click.option("--user", "for_user", is_flag=True, help="For the service manager of one user, who needs no root for it.")
def unit(*, for_socket: bool, for_user: bool) -> None:
    """Print the unit with which systemd runs the daemon: of the system, or with --user of the user who asks.

    headrace unit > /etc/systemd/system/headrace.service; docs/operation.md goes on from there."""
    sys.stdout.write(_SOCKET if for_socket else text(_command(), for_user=for_user))
    where = "~/.config/systemd/user" if for_user else "/etc/systemd/system"
    name = "headrace.socket" if for_socket else "headrace.service"
    render.say(f"save it as {where}/{name}, then: systemctl {'--user ' if for_user else ''}daemon-reload")


def text(command: str, *, for_user: bool = False) -> str:
    """Return the unit that starts ``command``, the absolute path of headrace."""
    return _UNIT.format(
        command=command,
        after="" if for_user else "After=network-online.target\nWants=network-online.target\n",
        user="" if for_user else "User=headrace\n",
        # The manager of a user cannot take away what only root may.
        hardened="NoNewPrivileges=yes\n" if for_user else _HARDENED,
        target="default.target" if for_user else "multi-user.target",
    )


def _command() -> str:
    """Return where headrace is: beside the Python it runs with, or on the path."""
    beside = Path(sys.executable).with_name("headrace")
    return str(beside) if beside.exists() else shutil.which("headrace") or str(beside)
