"""`State`: a place for the data of an application, on a session and on a server."""

from __future__ import annotations

from typing import Any


class State:
    """A namespace with any attributes: ``client.state.user = "alice"``, then ``client.state.user``.

    ``"user" in client.state`` tells whether an attribute is set.
    """

    __slots__ = ("__dict__",)

    def __getattr__(self, name: str) -> Any:
        known = ", ".join(map(repr, vars(self))) or "no attribute"
        raise AttributeError(f"{name!r} is not set in this state, which has {known}; set it before it is read")

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __contains__(self, name: object) -> bool:
        return name in vars(self)

    def __repr__(self) -> str:
        """Return the names without the values, which may be secrets."""
        return f"<State of {', '.join(vars(self)) or 'nothing'}>"
