"""All exceptions."""

from asyncapy_core.errors import *  # noqa: F403  # the same names, whatever they are
from asyncapy_core.errors import __all__ as __all__  # noqa: PLC0414  # exported as well
