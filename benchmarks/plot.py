"""Draw the results of a run: CPU time per request, by load and server, as an SVG file.

Knows the rows of `bench.py`, and no library: the picture has bars and text. It is as wide as the screen of a phone,
so that its text stays readable there, and has a background of its own, for pages in the light and the dark.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

WIDTH: Final = 400
LEFT: Final = 172
"""The start of the bars; the names of the servers are to the left."""
LONGEST: Final = 165
ROW: Final = 22
STYLE: Final = """
    text { font: 13px system-ui, sans-serif; fill: #24292f; }
    .load { font-weight: 600; }
    .ground { fill: #ffffff; }
    .ours { fill: #2f7d55; }
    .theirs { fill: #9aa5ae; }
    @media (prefers-color-scheme: dark) {
      text { fill: #d0d7de; }
      .ground { fill: #161b22; }
      .ours { fill: #4fb581; }
      .theirs { fill: #5b6670; }
    }
"""


def draw(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Draw the rows that have a CPU time, and print the path."""
    contests: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if "cpu_us" in row:
            contests.setdefault(row["what"], []).append(row)
    body: list[str] = []
    height = 34
    for load, bars in contests.items():
        body += _panel(load, bars, height)
        height += ROW * (len(bars) + 1) + 14
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">\n'
        f"  <style>{STYLE}  </style>\n"
        f'  <rect class="ground" width="{WIDTH}" height="{height}" rx="6"/>\n'
        '  <text x="12" y="22">Microseconds of server CPU; less is better</text>\n'
        + "\n".join(f"  {element}" for element in body)
        + "\n</svg>\n",
        encoding="utf-8",
    )
    print(f"Drawn to {path}")


def _panel(load: str, bars: list[dict[str, Any]], top: int) -> Iterator[str]:
    """Yield the elements of one load: its title, and a name, a bar and a number for each server."""
    longest = max(bar["cpu_us"] for bar in bars)
    yield f'<text class="load" x="12" y="{top + 16}">{escape(load)}</text>'
    for number, bar in enumerate(bars, 1):
        y, length = top + number * ROW, max(1.0, LONGEST * bar["cpu_us"] / longest)
        kind = "ours" if bar["server"].startswith("AsyncAPY") else "theirs"
        yield f'<text x="{LEFT - 8}" y="{y + 16}" text-anchor="end">{escape(bar["server"])}</text>'
        yield f'<rect class="{kind}" x="{LEFT}" y="{y + 4}" width="{length:.1f}" height="{ROW - 7}"/>'
        yield f'<text x="{LEFT + length + 5:.1f}" y="{y + 16}">{bar["cpu_us"]:.1f}</text>'


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text("utf-8"))["rows"], Path(sys.argv[2]))
