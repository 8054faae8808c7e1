"""The tests of the inventory. They need pytest, pytest-trio, and a pytest.ini with trio_mode = true."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from app import keys, server
from asyncapy.errors import FailureReply, Forbidden, InvalidFields, Unauthorized
from asyncapy_core import MemoryKeyStore
from asyncapy_core.testing.fixtures import OpenClient
from models import AddItem, Item, ListItems, ReadItem, RemoveItem
from storage import Storage, open_storage

HAMMER = Item(id=1, name="hammer", count=3, owner="alice")


@pytest.fixture(autouse=True)
def in_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(keys, "key_store", MemoryKeyStore())
    with closing(Storage(":memory:")) as storage, server.override(open_storage, lambda: storage):
        yield


@pytest.fixture
def alice() -> dict[str, str]:
    return {"key": keys.issue({"owner": "alice"})}


async def test_an_item_that_was_added_is_read_and_listed(asyncapy_client: OpenClient, alice: dict[str, str]) -> None:
    client = await asyncapy_client(server, version=23)
    assert await client.call(AddItem(name="hammer", count=3), extra=alice) == HAMMER
    assert await client.call(ReadItem(id=1), extra=alice) == HAMMER
    assert [item async for item in client.stream_call(ListItems(), extra=alice)] == [HAMMER]
    assert [item async for item in client.stream_call(ListItems(prefix="x"), extra=alice)] == []


async def test_only_the_owner_removes_an_item(asyncapy_client: OpenClient, alice: dict[str, str]) -> None:
    client = await asyncapy_client(server, version=23)
    await client.call(AddItem(name="hammer"), extra=alice)
    with pytest.raises(Forbidden):
        await client.call(RemoveItem(id=1), extra={"key": keys.issue({"owner": "bob"})})
    await client.call(RemoveItem(id=1), extra=alice)
    with pytest.raises(FailureReply, match="ERR_NOT_FOUND"):
        await client.call(ReadItem(id=1), extra=alice)


async def test_wrong_fields_are_named(asyncapy_client: OpenClient, alice: dict[str, str]) -> None:
    client = await asyncapy_client(server, version=23, raise_failures=True)
    with pytest.raises(InvalidFields) as caught:
        await client.request({"op": "items.add", "name": "", "count": 0, **alice})
    assert [field["loc"] for field in caught.value.fields["fields"]] == [["name"], ["count"]]


async def test_a_wrong_key_is_refused(asyncapy_client: OpenClient) -> None:
    client = await asyncapy_client(server, version=23)
    with pytest.raises(Unauthorized):
        await client.call(ReadItem(id=1), extra={"key": "wrong"})
