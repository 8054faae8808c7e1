"""The plot of the benchmarks, drawn by the script as a program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SVG = "{http://www.w3.org/2000/svg}"


def texts(picture: Path) -> list[str]:
    return [str(text.text) for text in ET.parse(picture).iter(f"{SVG}text")]


def test_the_plot_of_the_repository_shows_its_results(tmp_path: Path) -> None:
    results, drawn = BENCHMARKS / "results" / "full.json", tmp_path / "full.svg"
    subprocess.run([sys.executable, BENCHMARKS / "plot.py", results, drawn], check=True, capture_output=True)
    assert drawn.read_text("utf-8") == (BENCHMARKS / "results" / "full.svg").read_text("utf-8")
    assert "a new connection for each request" in texts(drawn), "the load for which another server needs less"


def test_each_server_has_a_bar_within_the_picture(tmp_path: Path) -> None:
    rows = [
        {"what": "a <load>", "server": "AsyncAPY", "cpu_us": 1.04},
        {"what": "a <load>", "server": "other", "cpu_us": 1000},
        {"what": "no time", "server": "AsyncAPY", "ratio": 1},
    ]
    results, drawn = tmp_path / "results.json", tmp_path / "plot.svg"
    results.write_text(json.dumps({"rows": rows}))
    subprocess.run([sys.executable, BENCHMARKS / "plot.py", results, drawn], check=True, capture_output=True)
    assert texts(drawn)[1:] == ["a <load>", "AsyncAPY", "1.0", "other", "1000.0"]
    root = ET.parse(drawn).getroot()
    assert all(float(bar.get("width", 0)) > 0 for bar in root.iter(f"{SVG}rect"))
    for text in root.iter(f"{SVG}text"):
        room = 0 if text.get("text-anchor") == "end" else 45  # for a number
        assert 0 < float(text.get("x", 0)) < float(root.get("width", 0)) - room
