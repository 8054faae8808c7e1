"""mypy and pyright, run on a folder of programs with the packages of an environment.

Both are those of the environment that runs the tests; pyright is basedpyright, which pip installs with its Node.js.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from installs.conftest import Environment

TIMEOUT = 300.0


@dataclass(frozen=True, order=True)
class Message:
    """A message of a type checker.

    Attributes:
        file: the path, relative to the folder that was checked.
        line: the line, from 1.
        revealed: whether this is the answer to a ``reveal_type``, rather than an error or a warning.
    """

    file: str
    line: int
    text: str
    revealed: bool


def mypy(environment: Environment, folder: Path) -> list[Message]:
    """Run ``mypy --strict`` on a folder, with the stubs in its ``typings``."""
    (folder / "mypy.ini").write_text("[mypy]\nmypy_path = typings\n", encoding="utf-8")
    cache = folder.with_name(f"{folder.name}.mypy_cache")
    options = ("--strict", "--output", "json", "--cache-dir", str(cache))
    done = _run("mypy", *options, "--python-executable", str(environment.python), ".", cwd=folder)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return sorted(
        Message(each["file"].removeprefix("./"), each["line"], each["message"], revealed)
        for each in found
        if (revealed := each["message"].startswith("Revealed type")) or each["severity"] != "note"
    )


def pyright(environment: Environment, folder: Path) -> list[Message]:
    """Run pyright on a folder, with the stubs in its ``typings``; in strict mode on ``right.py`` and the stubs."""
    config = {"typeCheckingMode": "standard", "strict": ["right.py", "typings"]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config), encoding="utf-8")
    done = _run("basedpyright", "--outputjson", "--pythonpath", str(environment.python), cwd=folder)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return sorted(
        Message(
            Path(each["file"]).relative_to(folder.resolve()).as_posix(),
            each["range"]["start"]["line"] + 1,
            each["message"],
            each["severity"] == "information",
        )
        for each in json.loads(done.stdout)["generalDiagnostics"]
    )


def completeness(environment: Environment, package: str) -> tuple[float, list[str]]:
    """Return the share of public names whose types are declared, and the complaints of pyright about the others."""
    path = f"{environment.python.parent}{os.pathsep}{os.environ['PATH']}"  # pyright asks the first Python for packages
    options = ("--verifytypes", package, "--ignoreexternal", "--outputjson")
    done = _run("basedpyright", *options, cwd=environment.path, PATH=path)
    report: dict[str, Any] = json.loads(done.stdout)["typeCompleteness"]
    faults = [
        f"{symbol['name']}: {fault['message']}"
        for symbol in report["symbols"]
        if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]
        for fault in symbol["diagnostics"] or [{"message": "its type is not known"}]
    ]
    assert report.get("pyTypedPath"), f"{package} has no py.typed"
    return float(report["completenessScore"]), faults


def _run(module: str, *arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MYPY", "PYTHON", "COV"))}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=cwd, env={**kept, **environ}, capture_output=True, text=True,
        check=False, timeout=TIMEOUT,
    )  # fmt: skip
