"""A key factory of a third party: each key is the name of a file, which has the metadata."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from asyncapy_core import APIKeyFactory


class FolderKeys(APIKeyFactory):
    """Finds the keys in a folder. Reading a file may wait."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.look_ups = 0

    def get(self, key: str) -> dict[str, Any]:
        """Return the metadata of a key."""
        self.look_ups += 1
        if not key.isalnum():
            raise KeyError(key)
        try:
            metadata = json.loads((self.folder / key).read_text("utf-8"))
        except FileNotFoundError:
            raise KeyError(key) from None
        return {**metadata, "main": threading.current_thread() is threading.main_thread()}
