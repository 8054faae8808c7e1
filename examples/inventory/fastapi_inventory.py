"""The same inventory in FastAPI. It has the models, the storage and the API keys of the other program."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import APIKeyHeader

from asyncapy.util import APIKeyFactory
from models import AddItem, Item, ItemId
from storage import Storage

keys = APIKeyFactory(store="sqlite:///keys.db")


def open_storage() -> Iterator[Storage]:
    with closing(Storage("inventory.db")) as storage:
        yield storage


def owner_of_key(key: Annotated[str, Depends(APIKeyHeader(name="X-API-Key"))]) -> str:
    try:
        owner: str = keys.get(key)["owner"]
    except KeyError:
        raise HTTPException(401, "the key is not valid") from None
    return owner


app = FastAPI(dependencies=[Depends(owner_of_key)])
Items = Annotated[Storage, Depends(open_storage)]
Owner = Annotated[str, Depends(owner_of_key)]


@app.get("/items/{number}")
def read(number: ItemId, items: Items) -> Item:
    item = items.read(number)
    if item is None:
        raise HTTPException(404, "there is no such item")
    return item


@app.post("/items", status_code=201)
def add(request: AddItem, items: Items, owner: Owner) -> Item:
    return items.add(request.name, request.count, owner)


@app.get("/items")
def list_items(items: Items, prefix: str = "") -> Iterable[Item]:
    yield from items.list(prefix)


@app.delete("/items/{number}", status_code=204)
def remove(number: ItemId, items: Items, owner: Owner) -> None:
    if read(number, items).owner != owner:
        raise HTTPException(403, "only its owner may remove it")
    items.remove(number)
