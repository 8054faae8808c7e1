"""Copy the version of `asyncapy_core` into the files that repeat it: ``set_version.py [--check | --print] [VERSION]``.

`__version__` in `asyncapy_core/__init__.py` is the source. The pyproject.toml files repeat it because a source
distribution is built from its own folder alone, and because tools read static metadata without a build.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.version import InvalidVersion, Version

SOURCE = "asyncapy_core/src/asyncapy_core/__init__.py"
PROJECTS = ("pyproject.toml", "asyncapy_*/pyproject.toml", "plugins/*/pyproject.toml")
PAGES = ("docs/install.md",)


def current(root: Path) -> str:
    """Return the version in the source file.

    Args:
        root: the root folder of the repository.

    Raises:
        ValueError: the source file has no version.
    """
    found = re.search(r'^__version__ = "(.*)"$', (root / SOURCE).read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError(f'{SOURCE} has no line __version__ = "..."; add it')
    return found[1]


def outdated(root: Path, version: str) -> Iterator[tuple[Path, str]]:
    """Yield each file that disagrees with a version, with the text that it should have.

    Raises:
        ValueError: the version is not in its normal form, or a file lacks the place for it.
    """
    rules = _rules(version)
    for pattern in (SOURCE, *PROJECTS, *PAGES):
        for path in sorted(root.glob(pattern)):
            before = text = path.read_text("utf-8")
            for place, replacement in rules[path.suffix]:
                text, count = re.subn(place, replacement, text, flags=re.MULTILINE)
                if place.startswith("^") and count != 1:
                    raise ValueError(f"{path.relative_to(root)} has {count} lines like {place}; it needs one")
            if text != before:
                yield path, text


def _rules(version: str) -> dict[str, list[tuple[str, str]]]:
    """Return patterns and their replacements by the suffix of a file; a pattern with ``^`` has to match once."""
    try:
        parsed = Version(version)
    except InvalidVersion as error:
        raise ValueError(f"{version!r} is not a version; give one such as 0.6.0, 0.6.1.dev0 or 0.7.0rc1") from error
    if str(parsed) != version:
        raise ValueError(f"{version!r} is not in its normal form; give {str(parsed)!r}")
    following = f"{parsed.major}.{parsed.minor + 1}"
    return {
        ".py": [(r'^__version__ = ".*"$', f'__version__ = "{version}"')],
        ".toml": [
            (r'^version = ".*"$', f'version = "{version}"'),
            (r'"(asyncapy-[\w-]+)==[^"]*"', rf'"\1=={version}"'),
            (r'"(asyncapy-[\w-]+)>=[^"]*"', rf'"\1>={version},<{following}"'),
        ],
        ".md": [(r"^asyncapy, version .*$", f"asyncapy, version {version}")],
    }


def main() -> None:
    """Write the version, or with ``--check`` fail if a file disagrees."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", nargs="?", metavar="VERSION", help="the new version; without it, the present one")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="change nothing, and fail if a file disagrees")
    mode.add_argument("--print", action="store_true", help="change nothing, and print the present version")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="another copy of the repository")
    arguments = parser.parse_args()
    root: Path = arguments.root
    try:
        version = arguments.version or current(root)
        changes = list(outdated(root, version))
    except ValueError as error:
        sys.exit(str(error))
    if arguments.print:
        print(version)
        return
    names = ", ".join(str(path.relative_to(root)) for path, _ in changes)
    if arguments.check and changes:
        sys.exit(f"{names}: the version is not {version}; run `make version`")
    for path, text in changes:
        path.write_text(text, encoding="utf-8")
    print(f"{version}: {f'changed {names}' if names else 'all files agree'}")


if __name__ == "__main__":
    main()
