"""The inventory of examples/, and the same service in FastAPI: one scenario for both, each in a process of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from asyncapy.client import Client
from asyncapy.errors import FailureReply
from asyncapy.util import APIKeyFactory

INVENTORY = Path(__file__).parents[2] / "examples" / "inventory"
LIMIT = 45
"""Lines of the program besides models and storage, empty ones included."""


REASONS: dict[str | int, str] = {
    "ERR_UNAUTHORIZED": "unauthorized",
    401: "unauthorized",
    "ERR_FORBIDDEN": "forbidden",
    403: "forbidden",
    "ERR_NOT_FOUND": "not found",
    404: "not found",
    "ERR_INVALID": "invalid",
    422: "invalid",
}


class Caller(ABC):
    """A client of one of both servers."""

    @abstractmethod
    def ask(self, key: str, operation: str, **fields: Any) -> Any:
        """Return the answer: an item, a list of items or None; or the reason of a failure."""


class AsyncapyCaller(Caller):
    def __init__(self, client: Client) -> None:
        self._client = client

    def ask(self, key: str, operation: str, **fields: Any) -> Any:
        request = {"op": f"items.{operation}", "key": key, **fields}
        try:
            answers = list(self._client.stream(request))
        except FailureReply as error:
            return REASONS[error.code]
        if operation == "list":
            return answers
        (answer,) = answers
        return None if answer == {"status": "success"} else answer


class HttpCaller(Caller):
    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def ask(self, key: str, operation: str, **fields: Any) -> Any:
        method, path = {
            "read": ("GET", f"/items/{fields.get('id')}"),
            "add": ("POST", "/items"),
            "list": ("GET", "/items"),
            "remove": ("DELETE", f"/items/{fields.get('id')}"),
        }[operation]
        body = fields if operation == "add" else None
        query = fields if operation == "list" else None
        answer = self._client.request(method, path, json=body, params=query, headers={"X-API-Key": key})
        if answer.is_error:
            return REASONS[answer.status_code]
        if operation == "list":
            return [json.loads(line) for line in answer.text.splitlines()]
        return answer.json() if answer.content else None


@contextmanager
def served(folder: Path, pattern: str, *command: str) -> Iterator[int]:
    """Run a server in a folder, and yield its port."""
    arguments = [sys.executable, "-m", *command]
    with subprocess.Popen(
        arguments, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            lines: list[str] = []
            for line in process.stderr:
                lines.append(line)
                if found := re.search(pattern, line):
                    break
            else:
                raise AssertionError("".join(lines))
            yield int(found[1])
        finally:
            process.terminate()
            process.communicate(timeout=20)
    assert process.returncode in (0, -signal.SIGTERM), "uvicorn ends by the signal itself"


@contextmanager
def served_by_asyncapy(folder: Path) -> Iterator[int]:
    command = ("asyncapy_cli", "serve", str(INVENTORY / "app.py"), "--port", "0")
    with served(folder, r"Serving on 127\.0\.0\.1:(\d+)", *command) as port:
        yield port


@pytest.fixture(params=["AsyncAPY", "FastAPI"])
def caller(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Caller]:
    if request.param == "AsyncAPY":
        with served_by_asyncapy(tmp_path) as port, Client(tls=False, timeout=20, version=23) as client:
            client.connect("127.0.0.1", port)
            yield AsyncapyCaller(client)
        return
    command = ("uvicorn", "--app-dir", str(INVENTORY), "--port", "0", "fastapi_inventory:app")
    with (
        served(tmp_path, r"running on http://127\.0\.0\.1:(\d+)", *command) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        yield HttpCaller(client)


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[APIKeyFactory]:
    with closing(APIKeyFactory(store=f"sqlite:///{tmp_path / 'keys.db'}")) as keys:
        yield keys


def test_both_programs_do_the_same(caller: Caller, keys: APIKeyFactory) -> None:
    alice, bob = keys.issue({"owner": "alice"}), keys.issue({"owner": "bob"})
    hammer = {"id": 1, "name": "hammer", "count": 3, "owner": "alice"}
    nail = {"id": 2, "name": "nail", "count": 1, "owner": "bob"}
    assert [caller.ask("wrong", operation, id=1) for operation in ("read", "list", "remove")] == ["unauthorized"] * 3
    assert caller.ask(alice, "add", name="hammer", count=3) == hammer
    assert caller.ask(bob, "add", name="nail") == nail
    assert caller.ask(bob, "read", id=1) == hammer
    assert caller.ask(alice, "list") == [hammer, nail]
    assert caller.ask(alice, "list", prefix="n") == [nail]
    assert caller.ask(alice, "add", name="", count="three") == "invalid"
    assert caller.ask(alice, "read", id=2**63) == "invalid"
    assert caller.ask(bob, "remove", id=1) == "forbidden"
    assert caller.ask(alice, "remove", id=1) is None
    assert caller.ask(alice, "read", id=1) == "not found"
    assert caller.ask(alice, "remove", id=1) == "not found"
    assert caller.ask(alice, "list") == [nail]


def test_the_client_of_the_inventory_prints_its_calls(tmp_path: Path, keys: APIKeyFactory) -> None:
    with served_by_asyncapy(tmp_path) as port:
        command = [sys.executable, str(INVENTORY / "client.py"), keys.issue({"owner": "alice"}), str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "alice has added 3 of hammer",
        "3 hammer",
        "ERR_NOT_FOUND: there is no such item",
    ]


def test_the_tests_of_the_inventory_pass(tmp_path: Path) -> None:
    for path in INVENTORY.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\nfilterwarnings = error\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:valkey", "test_inventory.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def lines_of(name: str) -> int:
    return len((INVENTORY / name).read_text("utf-8").splitlines())


def test_the_inventory_is_short_and_shorter_than_in_fastapi() -> None:
    assert lines_of("app.py") <= LIMIT
    assert lines_of("app.py") < lines_of("fastapi_inventory.py")


@pytest.mark.parametrize("page", ["README.md", "docs/inventory.md"])
def test_the_pages_count_the_lines_of_the_programs(page: str) -> None:
    text = (INVENTORY.parents[1] / page).read_text("utf-8")
    counts = [int(count) for count in re.findall(r"(?:in|of) (\d\d)(?= lines|\. A test)", text)]
    assert counts[0] == lines_of("app.py")
    assert counts[1:] in ([], [lines_of("fastapi_inventory.py")])
