"""Mistakes in the inventory: `asyncapy serve` says in a few lines what to do, and shows no code but the program's."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from asyncapy.client import Client
from asyncapy.util import APIKeyFactory

INVENTORY = Path(__file__).parents[2] / "examples" / "inventory"
MOST_LINES = 8
"""The most lines on standard error: the lines of the program, and the message."""

READ = "async def read(request: ReadItem, items: Items) -> Item:"
READ_ITEM = 'class ReadItem(Request[Item], op="items.read", errors=["ERR_NOT_FOUND"]):'
ITEMS = "Items = Annotated[Storage, Depends(open_storage)]"
LIST = "async def list_items(request: ListItems, items: Items) -> AsyncIterator[Item]:"
LIST_BODY = "    for item in await server.run_sync_task(items.list, request.prefix):\n        yield item\n"
CIRCLE = """def first(items: "Items") -> Storage:
    return items


Items = Annotated[Storage, Depends(first)]"""

FOR_CHECKERS = """from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
"""

MISTAKES = {
    "a parameter without an annotation": (
        "app.py",
        READ,
        READ.replace("request: ReadItem", "request"),
        "the parameter 'request' of the handler 'read' has no annotation; annotate it with",
    ),
    "a parameter of a type that is not known": (
        "app.py",
        READ,
        READ.replace("Items", "Storage"),
        "the parameter 'items' of the handler 'read' has the type Storage, which is not known; annotate it with",
    ),
    "a parameter for each field": (
        "app.py",
        READ,
        READ.replace("request: ReadItem", "number: int"),
        "has the type int, which is not known; annotate it with Client, Packet, Session, Server, KeyRecord, or a model",
    ),
    "any number of parameters": (
        "app.py",
        READ,
        READ.replace("items", "*items"),
        "the handler 'read' takes *items, which cannot be filled; name its parameters",
    ),
    "a request without an operation": (
        "models.py",
        READ_ITEM,
        "class ReadItem(Request[Item]):",
        "ReadItem has no operation: write class ReadItem(Request[...], op='books.read')",
    ),
    "a request without the type of its answer": (
        "models.py",
        READ_ITEM,
        READ_ITEM.replace("Request[Item]", "Request"),
        "ReadItem does not name the type of its answer: write class ReadItem(Request[Book], op='items.read')",
    ),
    "a request with one code in place of a list": (
        "models.py",
        READ_ITEM,
        READ_ITEM.replace('["ERR_NOT_FOUND"]', '"ERR_NOT_FOUND"'),
        "errors of ReadItem is a list of codes, such as ['ERR_NOT_FOUND']",
    ),
    "a request with a field for the operation": (
        "models.py",
        f"{READ_ITEM}\n    id: ItemId",
        f"{READ_ITEM}\n    op: ItemId",
        "ReadItem has a field 'op', but that is the field for the name of its operation; rename it",
    ),
    "another type of answer": (
        "app.py",
        READ,
        READ.replace("-> Item", "-> AddItem"),
        "the handler 'read' returns AddItem, but ReadItem is a Request[Item]; change one of them",
    ),
    "a function that is not asynchronous": (
        "app.py",
        f"{READ}\n    item = await server.run_sync_task(items.read, request.id)",
        f"{READ.removeprefix('async ')}\n    item = items.read(request.id)",
        "the handler 'read' must be asynchronous: write 'async def read(...)'",
    ),
    "Depends without a function": (
        "app.py",
        ITEMS,
        ITEMS.replace("(open_storage)", ""),
        "the parameter 'items' of the handler 'add' has Depends without a function: write Depends(function)",
    ),
    "Depends with the result of a function": (
        "app.py",
        ITEMS,
        ITEMS.replace("open_storage", "open_storage()"),
        "Depends takes a function, and not its result: write Depends(function), without calling it; got <async_gen",
    ),
    "dependencies in a circle": (
        "app.py",
        ITEMS,
        CIRCLE,
        "the dependencies of the handler 'add' depend on each other in a circle: first -> first; leave one Depends out",
    ),
    "a decorator for handlers without models": (
        "app.py",
        "@server.operation(ReadItem)",
        "@server.add_handler()",
        "which is the operation 'items.read': register it with @server.operation(ReadItem)",
    ),
    "a decorator without an operation": (
        "app.py",
        "@server.operation(ReadItem)",
        "@server.operation",
        "an operation has a name: write @server.operation('books.read')",
    ),
    "a decorator with another operation": (
        "app.py",
        "@server.operation(ReadItem)",
        "@server.operation(AddItem)",
        "but it is registered for 'items.add' in the field 'op': register it with @server.operation(ReadItem)",
    ),
    "a decorator with a model that is no request": (
        "app.py",
        "@server.operation(ReadItem)",
        "@server.operation(Item)",
        "Item has no operation: write class Item(Request[...], op='books.read')",
    ),
    "a name that is imported for type checkers only": (
        "app.py",
        "from collections.abc import AsyncIterator\nfrom typing import Annotated\n",
        FOR_CHECKERS,
        "has the unknown name 'AsyncIterator': import it at run time, not below 'if TYPE_CHECKING'",
    ),
    "two models": (
        "app.py",
        READ,
        READ.replace("request: ReadItem", "request: ReadItem, other: Item"),
        "the handler 'read' takes ReadItem and Item, but a packet is one model; put the fields into one class",
    ),
    "a list as an answer": (
        "app.py",
        LIST + "\n" + LIST_BODY,
        LIST.replace("AsyncIterator", "list") + "\n    return await server.run_sync_task(items.list, request.prefix)\n",
        "use a model with a field for it, dict[str, Any], or an async generator that yields its items",
    ),
    "a request whose answer is a list": (
        "models.py",
        READ_ITEM,
        READ_ITEM.replace("Request[Item]", "Request[list[Item]]"),
        "the answer of ReadItem: an answer is a map of fields, and list[models.Item] is none: use a model with a field",
    ),
    "a stream with the type of a list": (
        "app.py",
        LIST,
        LIST.replace("AsyncIterator", "list"),
        "the handler 'list_items' is an async generator: annotate its result as AsyncIterator[...]",
    ),
    "a stream whose class is that of one answer": (
        "models.py",
        "class ListItems(StreamRequest[Item]",
        "class ListItems(Request[Item]",
        "the handler 'list_items' has any number of answers, but ListItems is a Request; derive it from StreamRequest",
    ),
    "bytes in a model": (
        "models.py",
        "    count: int\n",
        "    count: int\n    picture: bytes\n",
        "a field of Item is bytes, which JSON has not: annotate it as asyncapy_typed.Binary, which is base64 in JSON",
    ),
}

FAILING = {
    "a dict for a model": (
        {"op": "items.add", "name": "nail"},
        'return await server.run_sync_task(items.add, request.name, request.count, key.metadata["owner"])',
        "return {}",
        "it returned a dict; return Item, as announced",
    ),
    "a stream without yield": (
        {"op": "items.list"},
        LIST_BODY,
        "    return await server.run_sync_task(items.list, request.prefix)\n",
        "; yield its ",  # the log leaves out the words of the packet
    ),
    "a dependency without yield": (
        {"op": "items.list"},
        ITEMS,
        f"async def nothing() -> AsyncIterator[Storage]:\n    for each in ():\n        yield each\n\n\n{ITEMS}".replace(
            "open_storage", "nothing"
        ),
        "it has to yield once: the dependency 'nothing'",
    ),
    "a key without a guard": (
        {"op": "items.add", "name": "nail"},
        'server.guard(Filters.APIFactory(keys, "key"))',
        "",
        "there is no KeyRecord: put a filter or guard before it",
    ),
}
"""Mistakes that the log of the server explains when a packet has arrived."""


def make(folder: Path, name: str, before: str, after: str) -> None:
    """Copy the inventory into a folder, with a mistake in one of its modules."""
    for module in ("app.py", "models.py", "storage.py"):
        text = (INVENTORY / module).read_text("utf-8")
        if module == name:
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        (folder / module).write_text(text)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_with_advice_in_a_few_lines(mistake: str, tmp_path: Path) -> None:
    name, before, after, advice = MISTAKES[mistake]
    make(tmp_path, name, before, after)
    command = [sys.executable, "-m", "asyncapy_cli", "serve", "app.py", "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    *program, message = done.stderr.splitlines()
    assert message.startswith("asyncapy: ")
    assert advice in message
    program = [
        line for line in program if not line.startswith(("server ", "address ", "filters ", "plugins ", "limits "))
    ]
    assert len(program) < MOST_LINES, done.stderr
    files = [line.split('"')[1] for line in program if line.startswith("  File ")]
    assert {Path(file).parent for file in files} <= {tmp_path}, done.stderr


@pytest.mark.parametrize("mistake", FAILING)
def test_a_mistake_that_shows_in_a_packet_is_explained_in_the_log(mistake: str, tmp_path: Path) -> None:
    fields, before, after, advice = FAILING[mistake]
    make(tmp_path, "app.py", before, after)
    with closing(APIKeyFactory(store=f"sqlite:///{tmp_path / 'keys.db'}")) as keys:
        key = keys.issue({"owner": "alice"})
    command = [sys.executable, "-m", "asyncapy_cli", "serve", "app.py", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            ports = (re.search(r"Serving on 127\.0\.0\.1:(\d+)", line) for line in process.stderr)
            port = next(int(found[1]) for found in ports if found)
            with Client(tls=False, timeout=20, version=23) as client:
                client.connect("127.0.0.1", port)
                assert client.request({**fields, "key": key}) == {"status": "failure", "error": "ERR_HANDLER_FAILED"}
        finally:
            process.terminate()
            log = process.stderr.read()
    (line,) = (line for line in log.splitlines() if "[ERROR]" in line)
    assert advice in line
