"""The items in an SQLite database. The methods of `Storage` block, so handlers call them in a thread."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing

import trio

from models import Item

TABLE = """
CREATE TABLE IF NOT EXISTS items (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, count INTEGER NOT NULL, owner TEXT NOT NULL
)
"""


class Storage:
    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, check_same_thread=False)
        self._database.row_factory = sqlite3.Row
        self._database.execute(TABLE)

    def read(self, number: int) -> Item | None:
        row = self._database.execute("SELECT * FROM items WHERE id = ?", [number]).fetchone()
        return None if row is None else Item(**row)

    def add(self, name: str, count: int, owner: str) -> Item:
        command = "INSERT INTO items (name, count, owner) VALUES (?, ?, ?) RETURNING *"
        with self._database:
            return Item(**self._database.execute(command, [name, count, owner]).fetchone())

    def list(self, prefix: str) -> list[Item]:
        query = "SELECT * FROM items WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name, id"
        return [Item(**row) for row in self._database.execute(query, [prefix])]

    def remove(self, number: int) -> None:
        with self._database:
            self._database.execute("DELETE FROM items WHERE id = ?", [number])

    def close(self) -> None:
        self._database.close()


async def open_storage() -> AsyncIterator[Storage]:
    """Open the database for one request."""
    with closing(await trio.to_thread.run_sync(Storage, "inventory.db")) as storage:
        yield storage
