"""The life of an execution: the one table that says which event may follow which status.

            a             b, l           c, d           h, j
      NEW ─────▶ QUEUED ◀────▶ RUNNING ◀─────▶ WAITING ◀─────▶ PAUSED ◀────▶ RUNNING, QUEUED
       │           │            │   │             │ k       h     │     h, i, m
       │f, g       │f, g        │f, g             │f, g           │f, g
       │           │            │   │e            │               │
       ▼           ▼            ▼   ▼             ▼               ▼
      ENDED_ERROR (f)    ENDED_CANCELLED (g)    ENDED_SUCCESS (e)

The arrows, one line each; ``tests/engine/test_lifecycle.py`` compares them with the table:

    a  NEW      queued       QUEUED            somebody asked for it to run
    b  QUEUED   started      RUNNING           there was room: a process (or the daemon, for a task) took it
    c  RUNNING  suspended    WAITING           its handler sits in a call that waits for something
    d  WAITING  resumed      RUNNING           the call was answered
    e  RUNNING  succeeded    ENDED_SUCCESS     the handler returned
    f  NEW      failed       ENDED_ERROR       it cannot be run at all
    f  QUEUED   failed       ENDED_ERROR       its flow is gone, or a restart found it unable to continue
    f  RUNNING  failed       ENDED_ERROR       an exception left the handler, its process died, it took too long
    f  WAITING  failed       ENDED_ERROR       the same, while it waited
    g  NEW      cancelled    ENDED_CANCELLED   somebody cancelled it before it ever ran
    g  QUEUED   cancelled    ENDED_CANCELLED   the same
    g  RUNNING  cancelled    ENDED_CANCELLED   the handler left after a cancel, or was killed after its grace time
    g  WAITING  cancelled    ENDED_CANCELLED   the same
    h  QUEUED   paused       PAUSED            it was parked: replaying it did not get it any further
    h  RUNNING  paused       PAUSED            it was asked to pause and came to a call, or its replay diverged
    h  WAITING  paused       PAUSED            the same, while it sat in one
    i  PAUSED   continued    RUNNING           somebody resumed it
    j  PAUSED   suspended    WAITING           the same, and its call still waits for something
    f  PAUSED   failed       ENDED_ERROR       its process died, or the daemon could not go on with it
    g  PAUSED   cancelled    ENDED_CANCELLED   somebody cancelled it
    k  WAITING  started      WAITING           it was replayed by a new process, up to the call it waits in
    k  WAITING  interrupted  WAITING           its process is gone; waiting goes on without one
    k  PAUSED   interrupted  PAUSED            the same, while it stands still
    l  RUNNING  interrupted  QUEUED            its process is gone: it will be replayed when there is room
    l  QUEUED   interrupted  QUEUED            the same before it got anywhere
    m  PAUSED   requeued     QUEUED            somebody resumed it, and it has no process any more
    m  QUEUED   restarted    QUEUED            it begins anew
    m  RUNNING  restarted    QUEUED            the same: its handler, or its metadata, said so
    m  WAITING  restarted    QUEUED            the same
    m  PAUSED   restarted    QUEUED            the same: somebody said so

An ended execution never changes again.
Everything that changes a status goes through ``next_status``: live supervision, recovery and the reading of
records alike.
"""

from __future__ import annotations

import enum


class Status(enum.StrEnum):
    """What people and flows see as an execution's status."""

    NEW = "NEW"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    PAUSED = "PAUSED"
    ENDED_SUCCESS = "ENDED_SUCCESS"
    ENDED_ERROR = "ENDED_ERROR"
    ENDED_CANCELLED = "ENDED_CANCELLED"

    @property
    def ended(self) -> bool:
        """Whether this is a final status."""
        return self in ENDED


ENDED = frozenset({Status.ENDED_SUCCESS, Status.ENDED_ERROR, Status.ENDED_CANCELLED})

#: (status, what happens) -> status after it. Anything not here cannot happen.
TABLE: dict[tuple[Status, str], Status] = {
    (Status.NEW, "queued"): Status.QUEUED,
    (Status.QUEUED, "started"): Status.RUNNING,
    (Status.RUNNING, "suspended"): Status.WAITING,
    (Status.WAITING, "resumed"): Status.RUNNING,
    (Status.RUNNING, "succeeded"): Status.ENDED_SUCCESS,
    (Status.NEW, "failed"): Status.ENDED_ERROR,
    (Status.QUEUED, "failed"): Status.ENDED_ERROR,
    (Status.RUNNING, "failed"): Status.ENDED_ERROR,
    (Status.WAITING, "failed"): Status.ENDED_ERROR,
    (Status.NEW, "cancelled"): Status.ENDED_CANCELLED,
    (Status.QUEUED, "cancelled"): Status.ENDED_CANCELLED,
    (Status.RUNNING, "cancelled"): Status.ENDED_CANCELLED,
    (Status.WAITING, "cancelled"): Status.ENDED_CANCELLED,
    (Status.RUNNING, "paused"): Status.PAUSED,
    (Status.WAITING, "paused"): Status.PAUSED,
    (Status.QUEUED, "paused"): Status.PAUSED,
    (Status.WAITING, "started"): Status.WAITING,
    (Status.RUNNING, "interrupted"): Status.QUEUED,
    (Status.QUEUED, "interrupted"): Status.QUEUED,
    (Status.WAITING, "interrupted"): Status.WAITING,
    (Status.PAUSED, "interrupted"): Status.PAUSED,
    (Status.PAUSED, "requeued"): Status.QUEUED,
    (Status.QUEUED, "restarted"): Status.QUEUED,
    (Status.RUNNING, "restarted"): Status.QUEUED,
    (Status.WAITING, "restarted"): Status.QUEUED,
    (Status.PAUSED, "restarted"): Status.QUEUED,
    (Status.PAUSED, "continued"): Status.RUNNING,
    (Status.PAUSED, "suspended"): Status.WAITING,
    (Status.PAUSED, "failed"): Status.ENDED_ERROR,
    (Status.PAUSED, "cancelled"): Status.ENDED_CANCELLED,
}

#: How an execution can end, as the transition that leads there.
ENDING = {
    Status.ENDED_SUCCESS: "succeeded",
    Status.ENDED_ERROR: "failed",
    Status.ENDED_CANCELLED: "cancelled",
}


class IllegalTransition(Exception):
    """An event that cannot happen in this status: a defect of ours or a damaged record, never a user's mistake."""

    def __init__(self, status: Status, transition: str) -> None:
        super().__init__(f"an execution that is {status.value} cannot be {transition}")
        self.status = status
        self.transition = transition


def next_status(status: Status, transition: str) -> Status:
    """Return the status after ``transition``; raises ``IllegalTransition`` where the table has no arrow."""
    try:
        return TABLE[status, transition]
    except KeyError:
        raise IllegalTransition(status, transition) from None
