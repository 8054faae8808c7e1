"""An inventory: four operations on items in a database, for clients with API keys."""

from collections.abc import AsyncIterator
from typing import Annotated

from asyncapy import Failure, Server
from asyncapy.filters import Filters
from asyncapy.typed import Depends
from asyncapy.util import APIKeyFactory, KeyRecord
from models import AddItem, Item, ListItems, ReadItem, RemoveItem
from storage import Storage, open_storage

server = Server(port=1500, describe=True)
keys = APIKeyFactory(store="sqlite:///keys.db")
server.guard(Filters.APIFactory(keys, "key"))
Items = Annotated[Storage, Depends(open_storage)]


@server.operation(ReadItem)
async def read(request: ReadItem, items: Items) -> Item:
    item = await server.run_sync_task(items.read, request.id)
    if item is None:
        raise Failure("ERR_NOT_FOUND", detail="there is no such item")
    return item


@server.operation(AddItem)
async def add(request: AddItem, items: Items, key: KeyRecord) -> Item:
    return await server.run_sync_task(items.add, request.name, request.count, key.metadata["owner"])


@server.operation(ListItems)
async def list_items(request: ListItems, items: Items) -> AsyncIterator[Item]:
    for item in await server.run_sync_task(items.list, request.prefix):
        yield item


@server.operation(RemoveItem)
async def remove(request: RemoveItem, items: Items, key: KeyRecord) -> None:
    item = await read(ReadItem(id=request.id), items)
    if item.owner != key.metadata["owner"]:
        raise Failure("ERR_FORBIDDEN", detail="only its owner may remove it")
    await server.run_sync_task(items.remove, request.id)
