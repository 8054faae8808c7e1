"""`record_arguments`: tells passed arguments from defaults."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

Init = TypeVar("Init", bound=Callable[..., None])


def record_arguments(init: Init) -> Init:
    """Decorate an ``__init__``, and set ``self._given`` to the arguments that were passed, by name."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        _, *passed = signature.bind(self, *args, **kwargs).arguments.items()
        self._given = dict(passed)
        init(self, *args, **kwargs)

    return cast("Init", wrapper)
