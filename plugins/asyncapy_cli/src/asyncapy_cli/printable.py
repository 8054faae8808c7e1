"""Text that is not ours, made fit for a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """Return text with all that moves the cursor or changes colours escaped as in JSON; line ends stay."""
    return "".join(
        f"\\u{ord(each):04x}" if unicodedata.category(each)[0] == "C" and each != "\n" else each for each in text
    )
