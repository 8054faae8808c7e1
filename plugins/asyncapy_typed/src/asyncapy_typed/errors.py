"""The failure for wrong fields: ERR_INVALID, with the places and reasons, and without their values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from asyncapy_core import Failure
from asyncapy_core.errors import ErrorCode

MAX_PROBLEMS: Final = 20
"""The most places that an answer lists."""

MAX_PARTS: Final = 16
"""The most parts of a place, from the outermost: models may be recursive."""

MAX_TEXT: Final = 200
"""Characters of the longest reason, and of the longest name in a place."""

MAX_CHARACTERS: Final = 4000
"""Characters of all places and reasons; each has at most six bytes, and the header may allow 65,535 for an answer."""

VERSION_TOO_OLD: Final = "ERR_VERSION_TOO_OLD"
"""The code of the answer to a request of version 22 for a stream of answers."""

Problem = tuple[Sequence[object], str]
"""A place, such as ``("books", 0, "title")``, and a reason."""


def invalid(*problems: Problem) -> Failure:
    """Return the failure for wrong fields: ``raise invalid((["id"], "there is no such book"))``.

    Args:
        problems: the places in the packet, each with a reason. A place is a list of names and indices, or the name of a
            field. At most 20 are sent, the last of which counts the rest. A reason should have no values of the packet.

    Raises:
        TypeError: a problem is not such a pair.
    """
    given: tuple[object, ...] = problems
    for problem in given:
        if not (isinstance(problem, tuple) and len(problem) == 2 and isinstance(problem[1], str)):
            raise TypeError(
                f"invalid takes pairs of a place and a reason, such as invalid((['id'], 'too small')); got {problem!r}"
            )
    return Failure(ErrorCode.INVALID, fields=_listed(problems))


def too_old() -> Failure:
    """Return the failure for a request of version 22 that has any number of answers."""
    return Failure(VERSION_TOO_OLD, detail="a stream of answers needs version 23 of the protocol")


def describe_problems(problems: Iterable[Problem]) -> str:
    """Return problems as text: ``id: Field required; title: ...``."""
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'packet'}: {each['msg']}" for each in _listed([*problems]))


def _listed(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = []
    left = MAX_CHARACTERS
    for place, reason in problems[:MAX_PROBLEMS]:
        each = {"loc": _place(place), "msg": _shortened(reason)}
        left -= len(each["msg"]) + sum(len(str(part)) for part in each["loc"])
        if left < 0 and listed:
            break
        listed.append(each)
    if len(listed) < len(problems):
        del listed[MAX_PROBLEMS - 1 :]
        listed.append({"loc": [], "msg": f"{len(problems) - len(listed)} more"})
    return listed


def _place(place: Sequence[object]) -> list[str | int]:
    parts = [place] if isinstance(place, str) else place[:MAX_PARTS]
    return [part if type(part) is int else _shortened(str(part)) for part in parts]


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
