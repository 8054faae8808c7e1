"""Draw the results of a run: CPU time per request, by load and server. Needs an environment with matplotlib."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def draw(rows: list[dict[str, Any]], path: Path, python: str) -> None:
    """Draw the rows that have a CPU time, and print the path, or a hint if matplotlib is missing."""
    contests = [row for row in rows if "cpu_us" in row]
    drawn = subprocess.run([python, __file__, str(path)], input=json.dumps(contests), text=True, check=False)
    print(f"Drawn to {path}" if drawn.returncode == 0 else "Not drawn: install benchmarks/requirements.txt")


def _main() -> None:
    from matplotlib import pyplot as plt  # noqa: PLC0415  # this environment may not have it

    rows = json.load(sys.stdin)
    titles = list(dict.fromkeys(row["what"] for row in rows))
    figure, panels = plt.subplots(len(titles), 1, figsize=(8, 1.1 + 1.15 * len(titles)), layout="constrained")
    for panel, title in zip(panels, titles, strict=True):
        bars = [row for row in rows if row["what"] == title][::-1]
        colours = ["#2f6f4f" if bar["server"].startswith("AsyncAPY") else "#b9c2c9" for bar in bars]
        drawn = panel.barh([bar["server"] for bar in bars], [bar["cpu_us"] for bar in bars], color=colours)
        panel.bar_label(drawn, fmt="%.1f", padding=3, fontsize=8)
        panel.set_title(title, loc="left", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(x=0.12)
    panels[-1].set_xlabel("microseconds of server CPU for a request; less is better", fontsize=9)
    figure.savefig(sys.argv[1])
    figure.savefig(Path(sys.argv[1]).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    _main()
