"""The setting ``run.executor``: a Ray cluster that flow processes run on."""

from __future__ import annotations

import re

import msgspec

from ..engine.workers import cluster

_LISTEN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]*):(\d{1,5})")


class Ray(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``address``: of the cluster's head, ``host:port``; ``auto`` is the one that this machine belongs to.

    ``listen``: where its nodes reach the daemon, ``host:port`` or ``:port``; empty is any port of the address that the
    cluster knows this machine by. ``flows``: which ones run there, ``all`` but those that say ``worker = "local"``, or
    the ``labelled`` ones that name a worker or resources. ``cpu``: cores of an execution whose flow says nothing.
    ``max_running``: so many executions at a time; Ray has those that find no room wait. ``lease_s``: a node that is
    silent for so long is given up, and has killed what it ran. ``folder``: where nodes keep snapshots and
    environments; empty is ``/var/tmp/headrace-UID``."""

    address: str = "auto"
    listen: str = ""
    flows: str = "all"
    cpu: float = 1.0
    max_running: int = 1000
    lease_s: float = 20.0
    folder: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not self.address or self.address.startswith("ray://"):
            raise ValueError("names a Ray client; give the address of the head, such as '10.0.0.1:6379', or 'auto'")
        found = _LISTEN.fullmatch(self.listen) if self.listen else None
        if self.listen and (found is None or int(found[2]) > 65535):
            raise ValueError(f"`listen` {self.listen!r} is not host:port")
        if self.flows not in ("all", "labelled"):
            raise ValueError("`flows` must be 'all' or 'labelled'")
        if not 0 <= self.cpu <= 1024:
            raise ValueError("`cpu` must be from 0 to 1024")
        if not 1 <= self.max_running <= 100_000:
            raise ValueError("`max_running` must be from 1 to 100000")
        if not 2 <= self.lease_s <= 600:
            raise ValueError("`lease_s` must be from 2 to 600 seconds")
        if self.folder and not self.folder.startswith("/"):
            raise ValueError(f"`folder` {self.folder!r} is not an absolute path")

    def options(self) -> cluster.Options:
        """Return what the engine has to know."""
        host, _, port = self.listen.rpartition(":")
        return cluster.Options(
            address=self.address,
            listen=f"{host or '0.0.0.0'}:{port}" if self.listen else "",  # noqa: S104 - nodes are other machines
            cpu=self.cpu,
            lease_s=self.lease_s,
            stock=self.folder,
        )
