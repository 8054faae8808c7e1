"""Print the oldest allowed release of each dependency: ``floors.py``, one ``NAME==VERSION`` a line, for pip.

The dependencies are those of all distributions of the repository, their extras included. `make floors` tests them.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

PROJECTS: Final = ("pyproject.toml", "asyncapy_*/pyproject.toml", "plugins/*/pyproject.toml")


def floors(root: Path) -> dict[str, str]:
    """Return the oldest allowed version of each dependency by its name, without the distributions of the repository.

    Args:
        root: the root folder of the repository.

    Raises:
        ValueError: a dependency has no ``>=`` or ``==``, or two distributions have different ones.
    """
    projects = [tomllib.loads(path.read_text("utf-8"))["project"] for each in PROJECTS for path in root.glob(each)]
    ours = {project["name"] for project in projects}
    found: dict[str, str] = {}
    for project in projects:
        extras = project.get("optional-dependencies", {}).values()
        for text in [*project.get("dependencies", ()), *(line for extra in extras for line in extra)]:
            requirement = Requirement(text)
            if requirement.name in ours:
                continue
            version = next((each.version for each in requirement.specifier if each.operator in {">=", "=="}), None)
            if version is None or found.setdefault(requirement.name, version) != version:
                raise ValueError(f"{project['name']} requires {text!r}; give one and the same >= everywhere")
    return dict(sorted(found.items()))


def main() -> None:
    """Print the oldest allowed releases."""
    for name, version in floors(Path(__file__).parents[1]).items():
        sys.stdout.write(f"{name}=={version}\n")


if __name__ == "__main__":
    main()
