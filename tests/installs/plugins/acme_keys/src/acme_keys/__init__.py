"""API keys in a folder: each key is the name of a file, which has its metadata.

Written to the documentation of AsyncAPY 0.5: a subclass of `APIKeyFactory` that overrides its five methods.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from asyncapy_core import APIKeyFactory, hookimpl
from asyncapy_core.errors import PluginError
from asyncapy_core.interfaces import ServerInterface


class asyncapy_options(BaseModel):
    """The options of this plugin, in the section ``[plugin:acme_keys]``."""

    folder: Path | None = Field(default=None, description="a folder of keys that has to be there when a server starts")


class FolderKeys(APIKeyFactory):
    """Keeps the keys in a folder. Each method reads or writes files, which may wait."""

    def __init__(self, folder: str, size: int = 32) -> None:
        super().__init__(size)
        self.folder = Path(folder)

    def issue(self, metadata: dict[str, Any] | None = None, *, expires_in: float | None = None) -> str:
        """Return a new key."""
        if expires_in is not None:
            raise ValueError("these keys do not expire")
        key = secrets.token_hex(self.size)[: self.size]
        self._path(key).write_text(json.dumps(metadata or {}), "utf-8")
        return key

    def get(self, key: str) -> dict[str, Any]:
        """Return the metadata of a key."""
        try:
            return dict(json.loads(self._path(key).read_text("utf-8")))
        except FileNotFoundError:
            raise KeyError(key) from None

    def update(self, key: str, metadata: dict[str, Any]) -> None:
        """Replace the metadata of a key."""
        self.get(key)
        self._path(key).write_text(json.dumps(metadata), "utf-8")

    def reissue(self, key: str) -> str:
        """Replace a key by a new one with the same metadata."""
        new = self.issue(self.get(key))
        self.revoke(key)
        return new

    def revoke(self, key: str) -> None:
        """Delete a key."""
        try:
            self._path(key).unlink()
        except FileNotFoundError:
            raise KeyError(key) from None

    def _path(self, key: str) -> Path:
        if not key.isalnum():
            raise KeyError(key)
        return self.folder / key


@hookimpl
def asyncapy_setup(server: ServerInterface, options: asyncapy_options) -> None:
    """Refuse the start without the folder."""
    if options.folder is not None and not options.folder.is_dir():
        raise PluginError(f"there is no folder {options.folder}")
