"""Telling the arguments that a caller wrote from those that were left to their defaults."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

Init = TypeVar("Init", bound=Callable[..., None])


def record_arguments(init: Init) -> Init:
    """Decorate an ``__init__`` so that it finds the arguments that were written, by name, in ``self._given``."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def noting(self: Any, *args: Any, **kwargs: Any) -> None:
        _, *written = signature.bind(self, *args, **kwargs).arguments.items()
        self._given = dict(written)
        init(self, *args, **kwargs)

    return cast("Init", noting)
