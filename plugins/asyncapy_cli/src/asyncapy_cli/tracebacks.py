"""Describes the exception of a program: the lines of the program, without those of the command line.

If AsyncAPY has raised it on purpose, because of a mistake in the program, the lines of AsyncAPY are left out as well.
"""

from __future__ import annotations

import importlib
import sys
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

from asyncapy_core.errors import AsyncAPYError

_OUR_PREFIX: Final = "asyncapy"
"""The beginning of the names of the packages of AsyncAPY and of its plugins."""

_LIBRARIES: Final = tuple(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib"))


def describe_exception(target: str, error: BaseException, hidden: str) -> str:
    """Return the lines that describe an exception of a program, for standard error.

    Args:
        target: the program, for the message.
        error: the exception.
        hidden: a file whose frames are left out, if they are the first.
    """
    trace = error.__traceback__
    while trace is not None and _is_machinery(trace.tb_frame.f_code.co_filename, hidden):
        trace = trace.tb_next
    if _is_mistake(error):
        lines = traceback.format_list(traceback.extract_tb(trace)[: _length_of_program(trace)])
        return f"{''.join(lines)}asyncapy: {target}: {error}"
    lines = traceback.format_exception(type(error), error, trace)
    return f"{''.join(lines)}asyncapy: {target} raised this exception before it could serve"


def _is_machinery(filename: str, hidden: str) -> bool:
    return filename == hidden or filename.startswith("<frozen") or filename == importlib.__file__


def _is_mistake(error: BaseException | None) -> bool:
    """Return True if a statement ``raise`` of AsyncAPY has raised an exception, and its causes as well."""
    while error is not None:
        frames = list(traceback.walk_tb(error.__traceback__))
        if not isinstance(error, (TypeError, ValueError, AsyncAPYError)) or not frames:
            return False
        line = traceback.extract_tb(error.__traceback__)[-1].line or ""
        if not _is_ours(frames[-1][0].f_globals) or not line.startswith("raise "):
            return False
        error = error.__cause__
    return True


def _length_of_program(trace: TracebackType | None) -> int:
    """Return the number of frames up to the last one of the program."""
    frames = [frame for frame, _ in traceback.walk_tb(trace)]
    of_program = [
        index
        for index, frame in enumerate(frames, 1)
        if not _is_ours(frame.f_globals) and not _is_library(frame.f_globals, frame.f_code.co_filename)
    ]
    return max(of_program, default=0)


def _is_ours(module: dict[str, object]) -> bool:
    return str(module.get("__name__")).startswith(_OUR_PREFIX)


def _is_library(module: dict[str, object], filename: str) -> bool:
    package = str(module.get("__name__")).partition(".")[0]
    is_file = not filename.startswith("<")
    return package in sys.stdlib_module_names or (is_file and any(map(Path(filename).is_relative_to, _LIBRARIES)))
