"""`Registration`: something that was registered with a server or a router, and that can be taken out again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Registration(Generic[T_co]):
    """A handler, a guard or a router that was registered. ``with`` removes it at the end of the block.

    A registration of a function is called like the function, so that `Server.guard` can decorate one.

    Args:
        registered: the function, filter or router.
        remove: takes it out; called once.

    Attributes:
        registered: the function, filter or router.
    """

    def __init__(self, registered: T_co, remove: Callable[[], object]) -> None:
        self.registered: T_co = registered
        self._remove: Callable[[], object] | None = remove
        if callable(registered):
            functools.update_wrapper(self, registered, updated=())

    def remove(self) -> None:
        """Take it out: packets that arrive from now on do not reach it. Removing twice does nothing."""
        remove, self._remove = self._remove, None
        if remove is not None:
            remove()

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function that was registered.

        Raises:
            TypeError: a filter or a router was registered.
        """
        registered: Any = self.registered
        return registered(*args, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<Registration of {self.registered!r}{', removed' if self._remove is None else ''}>"
