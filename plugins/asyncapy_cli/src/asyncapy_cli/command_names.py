"""The names of the commands that other distributions bring, as entry points in the group ``asyncapy.commands``.

Imports no command, and not `asyncapy_core` either, which takes longer than everything else that ``asyncapy --help``
does. `foreign_commands` imports a command when it is called.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from importlib.metadata import Distribution

GROUP: Final = "asyncapy.commands"
"""As in `asyncapy_core.plugins.discovery`, which is not imported here."""

_NAME: Final = re.compile(r"[\w.][\w.-]*")
"""A name that can be typed, listed in help and sent to a shell; `asyncapy plugins doctor` names other ones."""

_METADATA: Final = re.compile(r"(?P<name>[^~/\\-][^/\\-]*)(-[^/\\]*)?\.(dist|egg)-info")


def command_names() -> dict[str, list[str]]:
    """Return the commands of other distributions by name, each with its distributions: several claim the same name.

    Metadata that cannot be read is passed over; `asyncapy plugins doctor` names it.
    """
    found: dict[str, list[str]] = {}
    read: set[str] = set()
    for distribution in _distributions():
        try:
            folder = str(getattr(distribution, "_path", "")).replace("\\", "/").rpartition("/")[2]
            named = _METADATA.fullmatch(folder)
            title = named["name"] if named else folder or distribution.metadata["Name"]
            canonical = re.sub(r"[-_.]+", "-", title).lower()
            if canonical in read or title.startswith("~"):  # pip leaves such a folder behind when it is interrupted
                continue
            read.add(canonical)
            if GROUP not in (distribution.read_text("entry_points.txt") or ""):
                continue
            names = [each.name for each in distribution.entry_points if each.group == GROUP]
        except Exception:  # noqa: S112  # any file, or the object of a finder of another package
            continue
        for name in filter(_NAME.fullmatch, dict.fromkeys(names)):
            found.setdefault(name, []).append(_full_title(distribution, title))
    return dict(sorted(found.items()))


def _full_title(distribution: Distribution, title: str) -> str:
    """Return the name and the version of a distribution, or another title if its metadata has none."""
    try:
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
    except Exception:  # unreadable or missing
        return title
    return f"{name} {version}" if name and version else title


def _distributions() -> Iterator[Distribution]:
    """Yield the distributions of all finders that work: `importlib.metadata.distributions` stops at one that raises."""
    from importlib.metadata import DistributionFinder  # noqa: PLC0415  # takes as long to import as click

    for finder in sys.meta_path:
        try:
            find = getattr(finder, "find_distributions", None)
            if find is not None:
                yield from find(DistributionFinder.Context())
        except Exception:  # noqa: S112  # as above
            continue
