"""All exceptions."""

from asyncapy_core.errors import *  # noqa: F403  # all public names
from asyncapy_core.errors import __all__ as __all__  # noqa: PLC0414  # re-exported
