"""Write the generated part of docs/hooks.md: ``hooks_page.py [--check]``.

It consists of the hooks of `asyncapy_core.plugins.hookspecs`, with their docstrings, and of the programs in
docs/hook_examples, one for each hook.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asyncapy_core.plugins import hookspecs

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "hooks.md"
EXAMPLES: Final = ROOT / "docs" / "hook_examples"

BEGIN: Final = "<!-- written by tools/hooks_page.py from hookspecs.py and docs/hook_examples -->\n"
END: Final = "<!-- end of the generated part -->\n"

FIELDS: Final = ("When", "How often", "Order", "May raise")
"""The fields that the docstring of each hook has, in their order."""


@dataclass(frozen=True, slots=True)
class Description:
    """The docstring of a hook.

    Attributes:
        text: the paragraphs before the fields.
        fields: the text of each field.
        arguments: the description of each argument.
    """

    text: str
    fields: dict[str, str]
    arguments: dict[str, str]


def describe(documentation: str) -> Description:
    """Return the parts of the docstring of a hook.

    Raises:
        ValueError: it does not have all fields in their order.
    """
    text, *found = re.split(rf"^({'|'.join(FIELDS)}): ", documentation.partition("\nArgs:\n")[0], flags=re.MULTILINE)
    if tuple(found[::2]) != FIELDS:
        raise ValueError(f"expected the fields {', '.join(FIELDS)}; got {', '.join(found[::2]) or 'none'}: {text}")
    fields = {name: _joined(value) for name, value in zip(found[::2], found[1::2], strict=True)}
    arguments = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", documentation.partition("\nArgs:\n")[2], re.MULTILINE)
    return Description(_markdown(text), fields, {name: _joined(value) for name, value in arguments})


def render_hook(name: str) -> str:
    """Return the section of a hook.

    Raises:
        ValueError: its docstring lacks a field.
        OSError: it has no example.
    """
    hook = getattr(hookspecs, name)
    description = describe(inspect.getdoc(hook) or "")
    kind = "async def" if inspect.iscoroutinefunction(hook) else "def"
    lines = [f"## `{name}`", f"```text\n{kind} {name}{_signature(hook)}\n```", description.text]
    if description.arguments:
        lines.append("\n".join(f"* `{argument}`: {text}" for argument, text in description.arguments.items()))
    rows = (f"| {field} | {text} |" for field, text in description.fields.items())
    lines.append("\n".join(["| | |", "|---|---|", *rows]))
    lines.append(f"```python\n{(EXAMPLES / f'{name}_example.py').read_text(encoding='utf-8')}```")
    return "\n\n".join(lines) + "\n"


def render(page: str) -> str:
    """Return a page with a new generated part."""
    head, _, rest = page.partition(BEGIN)
    names = [name for name in vars(hookspecs) if name.startswith("asyncapy_")]
    return head + BEGIN + "\n" + "\n".join(map(render_hook, names)) + "\n" + END + rest.partition(END)[2]


def _signature(hook: object) -> str:
    text = str(inspect.signature(hook)).replace("'", "")  # type: ignore[arg-type]  # a function
    return re.sub(r"\b(?:asyncapy_core|collections|typing|contextlib)(?:\.[a-z_]+)*\.", "", text)


def _joined(text: str) -> str:
    return _markdown(" ".join(text.split()))


def _markdown(text: str) -> str:
    return text.replace("``", "`").strip()


def main() -> int:
    """Write the page, or check it; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; the status is 1 if the page is not current"
    )
    check: bool = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    rendered = render(page)
    if check and rendered != page:
        sys.stderr.write(f"{PAGE.name} is not current; run {Path(__file__).name}\n")
        return 1
    if not check:
        PAGE.write_text(rendered, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
