"""Adds, lists, reads and removes an item. The API key is the first argument: python client.py KEY [PORT]"""

import sys

from asyncapy.client import Client
from asyncapy.errors import FailureReply
from models import AddItem, ListItems, ReadItem, RemoveItem

key = {"key": sys.argv[1]}
port = int(sys.argv[2]) if len(sys.argv) > 2 else 1500

with Client(tls=False, version=23) as client:
    client.connect("127.0.0.1", port)
    item = client.call(AddItem(name="hammer", count=3), extra=key)
    print(f"{item.owner} has added {item.count} of {item.name}")
    for each in client.stream_call(ListItems(prefix="h"), extra=key):
        print(f"{each.count} {each.name}")
    client.call(RemoveItem(id=item.id), extra=key)
    try:
        client.call(ReadItem(id=item.id), extra=key)
    except FailureReply as error:
        print(f"{error.code}: {error.fields['detail']}")
