"""Which of Python's audit events are effects on the world, and how each is told in a few words. Pure.

An effect is what a second run of the same code would do a second time: something written, sent, started or removed.
Reading, importing Python, time and chance are none. ``JUDGES`` has a judge for every event that can be one: it returns
the detail people see, or None when this occurrence is harmless. Details name a path, an address or a program, never a
whole command line, query or environment: those hold secrets.

The events are those of https://docs.python.org/3/library/audit_events.html, as they really come in 3.11 to 3.13. What
announces itself by no event cannot be seen: writing to a descriptor that is open already (opening it was seen),
``os.mkfifo``, ``os.mknod``, what native code does by itself. That is why loading native code counts, unless it is known
to be harmless (``_HARMLESS_NATIVE``).
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Callable
from typing import Any

Arguments = tuple[Any, ...]
Judge = Callable[[Arguments], str | None]

DETAIL_CHARACTERS_MAX = 200
_WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_WRITING_MODE = re.compile("[wax+]")
#: Files whose writing changes nothing: the process's own streams, and where bytes vanish.
_NOWHERE = re.compile(r"/dev/(?:null|zero|full|random|urandom|tty|stdin|stdout|stderr|fd/\d+)|/proc/self/.*")

#: Of the standard library: native modules that touch the world behind Python's back. The others raise events, or only
#: compute. ``_posixshmem`` is loaded by what starts processes for ``multiprocessing``, which raises no event either.
_WORLDLY_NATIVE = frozenset({"_dbm", "_gdbm", "_posixshmem", "_tkinter"})
#: Packages whose native code works from memory to memory: it opens no file, socket or process by itself. A package
#: comes onto this list with a test that uses it. ``_cffi_backend`` is what ``Crypto`` loads its own code with, if cffi
#: is there.
_HARMLESS_NATIVE = frozenset({"Crypto", "_cffi_backend", "charset_normalizer", "markupsafe", "msgspec", "yaml"})
_BEHIND_AUTHORITY = re.compile("[/?#]")
_INSTALLED = re.compile(r"/(?:site|dist)-packages/([^/.]+)[^/]*(?:/|$)")

#: Functions that look like an effect and only try something out: (module, function).
PROBES = frozenset(
    {
        ("ctypes", "<module>"),  # opens the interpreter itself, while it is imported
        ("tempfile", "_get_default_tempdir"),  # writes a file and removes it, to find the directory
        ("platform", "_syscmd_file"),  # asks `file` about the interpreter
        ("platform", "from_subprocess"),  # asks `uname` for the processor
        ("urllib3.util.connection", "_has_ipv6"),  # binds a socket and closes it, while it is imported
    }
)


# -- files -------------------------------------------------------------------------------------------------------------


def path(value: Any) -> str:
    """Return a path, or what stands for one, as text."""
    if isinstance(value, (str, bytes, os.PathLike)):
        return os.fsdecode(value)
    return f"descriptor {value}" if isinstance(value, int) else ""


def _opened(arguments: Arguments) -> str | None:
    """``open(path, mode, flags)``: of ``open`` and ``os.open``. A descriptor instead of a path opens nothing."""
    where, mode, flags = arguments
    writes = (flags or 0) & _WRITING_FLAGS or (isinstance(mode, str) and _WRITING_MODE.search(mode))
    if not writes or isinstance(where, int):
        return None
    name = path(where)
    return None if _NOWHERE.fullmatch(name) else name


def _one(arguments: Arguments) -> str:
    return path(arguments[0])


def _two(arguments: Arguments) -> str:
    return f"{path(arguments[0])} → {path(arguments[1])}"


def _target(arguments: Arguments) -> str:
    return path(arguments[1])


def _database(arguments: Arguments) -> str | None:
    """``sqlite3.connect(database)``: in memory, temporary or only read is no effect."""
    name = path(arguments[0])
    bare, _, options = name.partition("?")
    if bare in ("", ":memory:", "file::memory:") or "mode=ro" in options or "immutable=1" in options:
        return None
    return bare


def _mapped(arguments: Arguments) -> str | None:
    """``mmap.__new__(descriptor, …, access, …)``: of a file that is open for writing."""
    descriptor, access = arguments[0], arguments[2]
    mmap: Any = sys.modules.get("mmap")  # it raises this event; what hardly any flow uses is not loaded for all
    if descriptor < 0 or access in (mmap.ACCESS_READ, mmap.ACCESS_COPY):
        return None
    try:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    except OSError:
        return None
    return None if flags & os.O_ACCMODE == os.O_RDONLY else f"descriptor {descriptor}"


_LOCKING = {
    getattr(fcntl, name)
    for name in ("F_SETLK", "F_SETLKW", "F_OFD_SETLK", "F_OFD_SETLKW", "F_SETLEASE")
    if hasattr(fcntl, name)
}


def _controlled(arguments: Arguments) -> str | None:
    """``fcntl.fcntl(descriptor, command, …)``: others see its locks; flags of a descriptor are its owner's business."""
    return f"descriptor {arguments[0]}" if arguments[1] in _LOCKING else None


#: TCGETS, TIOCGWINSZ, FIONREAD, FIOCLEX, FIONCLEX, FIONBIO: they ask, or concern this process alone.
_ASKING = frozenset({0x5401, 0x5413, 0x541B, 0x5451, 0x5450, 0x5421})


def _device(arguments: Arguments) -> str | None:
    return None if arguments[1] in _ASKING else f"descriptor {arguments[0]}"


# -- processes ---------------------------------------------------------------------------------------------------------


def _program(arguments: Arguments) -> str:
    """``subprocess.Popen(executable, args, …)``, ``os.exec(path, …)``, ``os.posix_spawn(path, …)``."""
    return path(arguments[0])


def _command(arguments: Arguments) -> str:
    """``os.system(command)``: its first word that sets no variable."""
    return next((word for word in path(arguments[0]).split() if "=" not in word), "")


def _nothing(_: Arguments) -> str:
    return ""


def _signal(arguments: Arguments) -> str | None:
    """``os.kill(process, signal)``: signal 0 only asks whether it is there."""
    return f"process {arguments[0]}, signal {int(arguments[1])}" if arguments[1] else None


def _native(arguments: Arguments) -> str | None:
    """``import(module, file, …)``: the file is given when, and only when, native code is loaded."""
    name, file = arguments[0], arguments[1]
    if not file:
        return None
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return name if top in _WORLDLY_NATIVE else None
    return None if _is_harmless(path(file)) else name


def _library(arguments: Arguments) -> str | None:
    """``ctypes.dlopen(name)``: no name stands for the C library, which can do everything."""
    if not arguments[0]:
        return "the C library"
    name = path(arguments[0])
    return None if _is_harmless(os.path.normpath(name)) else name


def _is_harmless(file: str) -> bool:
    installed = _INSTALLED.search(file)
    return installed is not None and installed[1] in _HARMLESS_NATIVE


# -- the network -------------------------------------------------------------------------------------------------------


def address(value: Any) -> str:
    """Return the address of a socket as text."""
    if isinstance(value, tuple) and len(value) >= 2:
        return f"{_text(value[0])}:{_text(value[1])}"
    return path(value) if isinstance(value, (str, bytes)) else ""


def _text(value: Any) -> str:
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)


def _peer(arguments: Arguments) -> str:
    """``socket.connect(socket, address)`` and its like."""
    return address(arguments[1])


def _message(arguments: Arguments) -> str | None:
    """``socket.sendmsg(socket, address)``: without an address the socket is connected, which was seen."""
    return address(arguments[1]) if arguments[1] else None


def _looked_up(arguments: Arguments) -> str | None:
    """``socket.getaddrinfo(host, port, …)`` and its like: asks a name server."""
    host = arguments[0]
    if not host:
        return None
    return f"{_text(host)}:{_text(arguments[1])}" if len(arguments) > 1 and arguments[1] else _text(host)


def _named(arguments: Arguments) -> str:
    """``socket.getnameinfo(address)``."""
    return address(arguments[0])


def _server(arguments: Arguments) -> str:
    """``http.client.connect(connection, host, port)`` and its like."""
    return address(arguments[1:3])


def _said(arguments: Arguments) -> str:
    """``http.client.send(connection, data)`` and its like: the connection may have been there for long."""
    host, port = getattr(arguments[0], "host", ""), getattr(arguments[0], "port", "")
    return address((host, port)) if host else ""


def _site(arguments: Arguments) -> str | None:
    """``urllib.Request(url, …)``: scheme and host; the rest of an address may hold a secret."""
    scheme, _, rest = _text(arguments[0]).partition(":")
    if scheme.lower() in ("file", "data"):
        return None
    authority = _BEHIND_AUTHORITY.split(rest.removeprefix("//"), maxsplit=1)[0].rpartition("@")[2]
    host = authority[: authority.find("]") + 1] or authority.partition(":")[0]
    return f"{scheme}://{host}" if rest else ""


#: Audit events that announce a child process.
CHILD_EVENTS = frozenset({"subprocess.Popen", "os.system", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"})
#: What stays in the process: a later execution in it has it without a new event.
LASTING_EVENTS = frozenset({"import", "ctypes.dlopen"})

# fmt: off
JUDGES: dict[str, Judge] = {
    event: judge
    for judge, events in (
        # files
        (_opened, ("open",)),
        (_one, ("os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.chflags", "os.truncate", "os.utime",
                "os.setxattr", "os.removexattr", "os.lockf", "fcntl.flock", "fcntl.lockf", "shutil.chown",
                "shutil.rmtree", "shutil.make_archive", "shutil.unpack_archive", "tempfile.mkstemp",
                "tempfile.mkdtemp")),
        (_two, ("os.rename", "os.link", "os.symlink", "shutil.move")),
        (_target, ("shutil.copyfile", "shutil.copymode", "shutil.copystat", "shutil.copytree", "os.spawn")),
        (_database, ("sqlite3.connect",)),
        (_mapped, ("mmap.__new__",)),
        (_controlled, ("fcntl.fcntl",)),
        (_device, ("fcntl.ioctl",)),
        # processes
        (_program, ("subprocess.Popen", "os.exec", "os.posix_spawn")),
        (_command, ("os.system",)),
        (_nothing, ("os.fork", "os.forkpty", "pty.spawn", "syslog.openlog", "syslog.syslog")),
        (_signal, ("os.kill", "os.killpg", "signal.pthread_kill")),
        (_native, ("import",)),
        (_library, ("ctypes.dlopen",)),
        # the network
        (_peer, ("socket.connect", "socket.bind", "socket.sendto")),
        (_message, ("socket.sendmsg",)),
        (_looked_up, ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")),
        (_named, ("socket.getnameinfo", "socket.sethostname")),
        (_site, ("urllib.Request", "webbrowser.open")),
        (_server, ("http.client.connect", "ftplib.connect", "smtplib.connect", "imaplib.open", "poplib.connect",
                   "nntplib.connect", "telnetlib.Telnet.open")),
        (_said, ("http.client.send", "ftplib.sendcmd", "smtplib.send", "imaplib.send", "poplib.putline",
                 "nntplib.putline", "telnetlib.Telnet.write")),
    )
    for event in events
}
# fmt: on
