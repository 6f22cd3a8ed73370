"""Python's ``logging`` inside flows: every record goes to the execution's log, with its level and in its place.

The root logger has one handler, ours, and the level INFO. ``logging.basicConfig`` is ours too: it shapes that handler
instead of adding one that writes the same line to standard error again. Each execution starts with this configuration,
whatever the one before it in the same process did.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any

from . import channel as channels
from . import frames

_LEVELS = ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"))
#: A frame holds 64 MiB and a character takes up to six bytes in it.
_TEXT_CHARACTERS_MAX = 8 * 1024 * 1024
_PLAIN = logging.Formatter()
#: What ``logging.basicConfig`` takes and what we do not handle by name.
_FILE_OPTIONS = {"filemode": "a", "encoding": None, "errors": "backslashreplace"}


class RecordHandler(logging.Handler):
    """Sends what is logged over the channel; in a process that the flow forked by itself, to standard error."""

    def __init__(self, channel: channels.Channel) -> None:
        super().__init__()
        self._channel = channel
        self._owner = os.getpid()

    def begin(self) -> None:
        """Be as new."""
        self._owner = os.getpid()
        self.level = logging.NOTSET
        self.formatter = None
        self.filters.clear()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; a format that does not fit its arguments is told on standard error, as usual."""
        try:
            text = (self.formatter or _PLAIN).format(record)[:_TEXT_CHARACTERS_MAX]
        except (TypeError, ValueError, LookupError, AttributeError):
            self.handleError(record)
            return
        if os.getpid() != self._owner:
            os.write(2, f"{text}\n".encode("utf-8", "backslashreplace"))
            return
        labels = {} if self.formatter or record.name == "root" else {"logger": record.name}
        with contextlib.suppress(frames.ChannelClosed):  # the daemon is gone: the next call says so
            self._channel.note(_level(record.levelno), text, labels)


class Logs:
    """The logging configuration of one flow process."""

    def __init__(self, channel: channels.Channel) -> None:
        self._handler = RecordHandler(channel)
        self._configured = False
        self._is_new = False

    def renew(self) -> None:
        """Forget what the last execution configured, once and for all processes that are forked from this one."""
        self.begin()
        self._is_new = True

    def begin(self) -> None:
        """Forget what the last execution configured."""
        if self._is_new:
            self._is_new = False
            self._handler.begin()
            return
        root = logging.root
        self._take_root()
        self._handler.begin()
        self._configured = False
        logging.basicConfig = self.configure
        logging.captureWarnings(False)
        logging.setLogRecordFactory(logging.LogRecord)
        root.manager.disable = 0
        root.disabled = False
        root.filters.clear()
        for logger in root.manager.loggerDict.values():
            if isinstance(logger, logging.Logger):
                _reset(logger)
        root.setLevel(logging.INFO)  # also makes every logger forget what it had worked out

    def configure(self, **options: Any) -> None:
        """Stand in for ``logging.basicConfig``: the same options, and like it without effect when called again."""
        force = options.pop("force", False)
        if (self._configured or logging.root.handlers != [self._handler]) and not force:
            return
        self._take_root()
        self._handler.begin()
        self._configured = True
        level = options.pop("level", None)
        text, dates, style = options.pop("format", None), options.pop("datefmt", None), options.pop("style", "%")
        if text or dates:
            self._handler.setFormatter(logging.Formatter(text, dates, style))
        for handler in _handlers(options):
            self._add(handler)
        if level is not None:
            logging.root.setLevel(level)

    def _add(self, handler: logging.Handler) -> None:
        """Add a handler, but for one that writes to the console: ours stands for it."""
        if type(handler) is logging.StreamHandler and handler.stream in (sys.stdout, sys.stderr):
            self._handler.formatter = self._handler.formatter or handler.formatter
            self._handler.setLevel(handler.level)
            return
        if handler.formatter is None:
            handler.setFormatter(self._handler.formatter or logging.Formatter(logging.BASIC_FORMAT))
        logging.root.addHandler(handler)

    def _take_root(self) -> None:
        """Make our handler the root logger's only one."""
        for handler in logging.root.handlers:
            if handler is not self._handler:
                _close(handler)
        logging.root.handlers[:] = [self._handler]


def _handlers(options: dict[str, Any]) -> list[logging.Handler]:
    """Return the handlers that ``basicConfig`` was asked for; raises ``ValueError`` as it does."""
    handlers, stream, filename = (options.pop(name, None) for name in ("handlers", "stream", "filename"))
    file_options = {name: options.pop(name, default) for name, default in _FILE_OPTIONS.items()}
    if options:
        raise ValueError(f"Unrecognised argument(s): {', '.join(options)}")
    if sum(given is not None for given in (handlers, stream, filename)) > 1:
        raise ValueError("'handlers', 'stream' and 'filename' should not be specified together")
    if filename is not None:
        mode = file_options.pop("filemode")
        return [logging.FileHandler(filename, mode, **file_options)]
    if stream is not None:
        return [logging.StreamHandler(stream)]
    return list(handlers or ())


def _reset(logger: logging.Logger) -> None:
    logger.level = logging.NOTSET
    logger.propagate = True
    logger.disabled = False
    if logger.handlers:
        for handler in logger.handlers:
            _close(handler)
        logger.handlers.clear()
    if logger.filters:
        logger.filters.clear()


def _close(handler: logging.Handler) -> None:
    with contextlib.suppress(OSError, ValueError):  # its file may be gone or full: nobody is left to tell
        handler.close()


def _level(number: int) -> str:
    return next((name for least, name in _LEVELS if number >= least), "DEBUG")
