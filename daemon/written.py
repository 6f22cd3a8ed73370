"""What people write: spans of time, addresses, URLs with credentials in them; and where the state lies unless they say.

The standard library alone, for every verb of the command line begins with it.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping

#: The state directory when nobody names one.
STATE_DIRECTORY = ".headrace"

#: How severe a line of the log is.
LEVELS = ("debug", "info", "warning", "error")

_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^\[\]:\s]+)):(?P<port>\d{1,5})")
_WEB_CREDENTIALS = re.compile(r"(https?://)[^/\s@]+@")
_URL_PASSWORD = re.compile(r"(\w+://[^/\s@:]+):[^/\s@]+@")


def without_credentials(text: str) -> str:
    """Return ``text`` with what URLs in it carry as user name and password made unreadable."""
    return _URL_PASSWORD.sub(r"\1:***@", _WEB_CREDENTIALS.sub(r"\1***@", text))


def duration_s(value: object) -> float:
    """Return seconds for ``"500ms"``, ``"30s"``, ``"5m"``, ``"2h"``, ``"1d"`` or a bare number of seconds."""
    match = None if isinstance(value, bool) else _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise ValueError('is not a duration such as "30s", "5m" or "2h"')
    return float(match[1]) * _UNITS_S[match[2] or "s"]


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """A TCP address to listen on; port 0 lets the system choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, value: object) -> Address:
        """Read ``host:port`` or ``[v6]:port``; raises ``ValueError``."""
        match = _ADDRESS.fullmatch(str(value).strip())
        if match is None or int(match["port"]) > 65535:
            raise ValueError("is not HOST:PORT, such as 127.0.0.1:8420 or [::1]:8420")
        if match["v6"]:
            try:
                ipaddress.IPv6Address(match["v6"])
            except ValueError:
                raise ValueError(f"holds {match['v6']}, which is not an IPv6 address") from None
        return cls(match["v6"] or match["host"], int(match["port"]))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def state_directory(environ: Mapping[str, str]) -> str:
    """Return the state directory that holds when nobody names one."""
    # systemd joins several StateDirectory= with colons; the first is the unit's own
    return environ.get("STATE_DIRECTORY", "").partition(":")[0] or STATE_DIRECTORY
