"""`Progress`: the progress of a request of version 23, from its packet to its last answer."""

from __future__ import annotations

from enum import IntEnum


class Progress(IntEnum):
    """The progress of a request, in order."""

    IN_PLACE = 0
    """Its handler runs in the task that reads, and has not waited; no answer is kept."""
    OPEN = 1
    """Its handler has waited, or begins in another task, or `Client.answering` keeps it open."""
    PARTLY = 2
    """A part of its answer was sent, and may have been the last."""
    KEPT = 3
    """Its latest answer is the last item of the output queue, and is the last answer if no other follows."""
    ANSWERED = 4
    """Its handler has sent the last answer, and may send no other."""
    CLOSED = 5
    """Its handler has closed the connection."""
    CANCELLED = 6
    """Its client no longer waits: answers are dropped."""
    ENDED = 7
    """It has ended with its handler."""
