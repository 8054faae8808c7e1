"""The requests and answers of the inventory, for the server and its clients."""

from typing import Annotated

from pydantic import BaseModel, Field

from asyncapy.typed import Request, StreamRequest

ItemId = Annotated[int, Field(gt=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Item(BaseModel):
    id: ItemId
    name: str
    count: int
    owner: str


class ReadItem(Request[Item], op="items.read", errors=["ERR_NOT_FOUND"]):
    id: ItemId


class AddItem(Request[Item], op="items.add"):
    name: str = Field(min_length=1, max_length=80)
    count: Count = 1


class ListItems(StreamRequest[Item], op="items.list"):
    prefix: str = ""


class RemoveItem(Request[None], op="items.remove", errors=["ERR_NOT_FOUND", "ERR_FORBIDDEN"]):
    id: ItemId
