"""docs/hooks.md: its generated part is current, and has an example for each hook, which runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hooks_page import describe, render

from asyncapy_core.plugins import hookspecs

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "hooks_page.py"
EXAMPLES = ROOT / "docs" / "hook_examples"
HOOKS = [name for name in vars(hookspecs) if name.startswith("asyncapy_")]

PAGE = (ROOT / "docs" / "hooks.md").read_text("utf-8")


def test_the_page_agrees_with_the_specifications() -> None:
    assert render(PAGE) == PAGE
    assert subprocess.run([sys.executable, TOOL, "--check"], check=False).returncode == 0


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_says_when_how_often_in_which_order_and_what_may_be_raised(hook: str) -> None:
    section = PAGE.partition(f"## `{hook}`\n")[2].partition("\n## ")[0]
    for field in ("When", "How often", "Order", "May raise"):
        assert f"\n| {field} | " in section
    assert "```python\n" in section


@pytest.mark.parametrize("hook", HOOKS)
def test_the_example_of_a_hook_runs_and_implements_it(hook: str) -> None:
    example = EXAMPLES / f"{hook}_example.py"
    assert f"def {hook}(" in example.read_text("utf-8")
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr


def test_there_is_no_example_of_another_hook() -> None:
    assert {each.stem for each in EXAMPLES.glob("*.py")} == {f"{hook}_example" for hook in HOOKS}


def test_a_description_without_a_field_is_an_error() -> None:
    text = "Do it.\n\nWhen: now.\nHow often: once.\nMay raise: nothing."
    with pytest.raises(ValueError, match="expected the fields When, How often, Order, May raise; got When, How often"):
        describe(text)
    found = describe(text.replace("May", "Order: any,\n    even this.\nMay") + "\n\nArgs:\n    a: one,\n        two.\n")
    assert found.fields["Order"] == "any, even this."
    assert found.arguments == {"a": "one, two."}
    assert found.text == "Do it."
