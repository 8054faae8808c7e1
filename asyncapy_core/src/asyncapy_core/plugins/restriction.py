"""`Restriction`: an allow-list and a deny-list of plugins."""

from __future__ import annotations

from collections.abc import Collection


class Restriction:
    """An allow-list and a deny-list of plugin names; without an allow-list, all others are allowed."""

    __slots__ = ("_allow", "_deny")

    def __init__(self, allow: Collection[str] | None = None, deny: Collection[str] = ()) -> None:
        self._allow = None if allow is None else frozenset(allow)
        self._deny = frozenset(deny)

    @property
    def allowed(self) -> frozenset[str]:
        """The names on the allow-list."""
        return self._allow or frozenset()

    @property
    def denied(self) -> frozenset[str]:
        """The names on the deny-list."""
        return self._deny

    def __bool__(self) -> bool:
        return self._allow is not None or bool(self._deny)

    def reason(self, *names: str) -> str:
        """Return the reason why code with these names is denied, or ``""``.

        One name on the deny-list denies it; with an allow-list, one name there allows it.
        """
        if not self._deny.isdisjoint(names):
            return "it is on the deny list"
        return "" if self._allow is None or not self._allow.isdisjoint(names) else "it is not on the allow list"
