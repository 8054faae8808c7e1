"""Tools of others accept the descriptions of servers, and the code for their clients. `make web` runs these tests.

They need node, and the packages of package.json in the folder that the variable WEB names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND

ROOT = Path(__file__).parents[2]
WEB = Path(os.environ["WEB"]).resolve()
TYPED = ROOT / "tests" / "plugins" / "typed" / "described.py"
SERVERS = {
    "typed": TYPED,
    "inventory": ROOT / "examples" / "inventory" / "app.py",
}
ERROR = 0
"""The severity of an error."""


def node(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["node", *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=110)


def written(command: str, name: str, output: Path, *options: str) -> Path:
    """Run a command for a server, in the folder of the output."""
    arguments = [*COMMAND, command, f"{SERVERS[name]}:server", *options, "--output", str(output)]
    subprocess.run(arguments, cwd=output.parent, check=True, timeout=60)
    return output


def parsed(*documents: Path) -> list[dict[str, Any]]:
    done = node(Path(__file__).with_name("parse.cjs"), WEB, *documents, cwd=documents[0].parent)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def errors(found: dict[str, Any]) -> list[Any]:
    return [each for each in found["diagnostics"] if each["severity"] == ERROR]


def tsc(folder: Path) -> str:
    """Compile the TypeScript of a folder, and return the complaints."""
    options = {"strict": True, "noEmit": True, "target": "es2022", "module": "nodenext", "types": [], "lib": ["es2022"]}
    options |= {"exactOptionalPropertyTypes": True, "noUncheckedIndexedAccess": True}
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["*.ts"]}))
    return node(WEB / "node_modules" / "typescript" / "bin" / "tsc", "-p", folder, cwd=folder).stdout


@pytest.mark.parametrize("name", SERVERS)
def test_the_parser_of_asyncapi_finds_no_error_in_a_description(name: str, tmp_path: Path) -> None:
    document = written("describe", name, tmp_path / "api.json")
    (found,) = parsed(document)
    assert not errors(found)
    assert found["operations"] == list(json.loads(document.read_text("utf-8"))["operations"])


def test_the_parser_finds_errors_in_other_documents(tmp_path: Path) -> None:
    document = json.loads(written("describe", "typed", tmp_path / "api.json").read_text("utf-8"))
    del document["info"]["version"]
    document["operations"]["books.read"]["reply"]["messages"][0]["$ref"] = "#/channels/packets/messages/none"
    (tmp_path / "wrong.json").write_text(json.dumps(document))
    (found,) = parsed(tmp_path / "wrong.json")
    assert found["operations"] is None
    assert len(errors(found)) >= 2


@pytest.mark.parametrize("name", SERVERS)
def test_typescript_compiles_in_strict_mode(name: str, tmp_path: Path) -> None:
    written("client", name, tmp_path / "api.ts", "--language", "typescript")
    assert tsc(tmp_path) == ""


def test_a_program_with_the_types_compiles_and_its_mistakes_do_not(tmp_path: Path) -> None:
    written("client", "typed", tmp_path / "api.ts", "--language", "typescript")
    program = Path(__file__).with_name("user.ts")
    shutil.copy(program, tmp_path)
    complaints = tsc(tmp_path)
    (tmp_path / "user.ts").write_text(program.read_text("utf-8").replace("@ts-expect-error", ""))
    mistakes = tsc(tmp_path)
    assert complaints == ""
    assert mistakes.count("error TS") >= program.read_text("utf-8").count("@ts-expect-error")
