"""`Limit`: a number of packets for a period, and its text form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

UNITS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
"""Seconds, by the names of the units."""

MOST: Final = 10**9
"""The largest number of packets of a limit."""

LONGEST: Final = 366 * 86400
"""Seconds of the longest period."""

EXAMPLE: Final = "'100/second; 5000/hour'"

_LIMIT: Final = re.compile(r"(?P<count>[0-9]{1,12}) */ *((?P<number>[0-9]{1,12}) +)?(?P<unit>second|minute|hour|day)s?")


@dataclass(frozen=True, slots=True)
class Limit:
    """A number of packets for a period.

    Attributes:
        count: the packets.
        period: the seconds.
    """

    count: int
    period: int

    @property
    def rate(self) -> float:
        """The packets for a second."""
        return self.count / self.period


def parse_limits(text: str) -> tuple[Limit, ...]:
    """Return the limits of a text such as ``"100/second; 5000/hour"`` or ``"20/10 seconds"``.

    Raises:
        TypeError: it is not a text.
        ValueError: it has another form, or a number is out of range.
    """
    if not isinstance(text, str):
        raise TypeError(f"the limits of Filters.Rate are a text; got {text!r}; write one such as {EXAMPLE}")
    return tuple(_parse(part.strip(), text) for part in text.removesuffix(";").split(";"))


def _parse(part: str, text: str) -> Limit:
    found = _LIMIT.fullmatch(part)
    if found is None:
        raise ValueError(
            f"Filters.Rate({text!r}): {part!r} is not a limit; write a number of packets, '/', and "
            f"{', '.join(UNITS)} or a number of these, such as {EXAMPLE} or '20/10 seconds'"
        )
    count, period = int(found["count"]), int(found["number"] or 1) * UNITS[found["unit"]]
    if not 1 <= count <= MOST:
        raise ValueError(f"Filters.Rate({text!r}): a limit of {count} packets; write 1 to {MOST}")
    if not 1 <= period <= LONGEST:
        raise ValueError(f"Filters.Rate({text!r}): a period of {period} seconds; write 1 second to 366 days")
    return Limit(count, period)
