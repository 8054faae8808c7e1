"""Kinds of settings that pydantic does not have: lists written as text, names of plugins, networks.

Does not know any setting: `asyncapy_core.config` lists them.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, create_model

from asyncapy_core import defaults
from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.logs import safe_str

log: logging.Logger = logging.getLogger("asyncapy.config")

NO_HOST: Final = re.compile(r"""[\s"'#;\[\](){}]""")
"""A character of no host name and of no IP address."""


def _listed(value: object) -> object:
    return defaults.split_list(value) if isinstance(value, str) else value


def _joined(value: object) -> object:
    return ", ".join(value) if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value) else value


def _name(value: str) -> str:
    if defaults.PLUGIN_NAME.fullmatch(value) is None:
        raise ValueError(f"{value!r} is no name of a plugin: write names without quotes, brackets, blanks and comments")
    return value


def valid_network(text: str) -> str:
    """Return an address or a network; IPv4 mapped into IPv6 becomes IPv4, as in the addresses of peers.

    Raises:
        ValueError: it is neither, or has a zone, which the addresses of peers do not have.
    """
    network = ipaddress.ip_network(text)
    if "%" in text:
        raise ValueError(f"{text!r} has a zone; write it without {text[text.index('%') :].partition('/')[0]}")
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is None or network.prefixlen < 96:
        return text
    return str(ipaddress.IPv4Network((mapped, network.prefixlen - 96)))


Addresses = Annotated[str, BeforeValidator(_joined)]
Items = Annotated[list[str], BeforeValidator(_listed)]
Names = Annotated[list[Annotated[str, AfterValidator(_name)]], BeforeValidator(_listed)]


def setting(default: object, meaning: str, allowed: str, **bounds: Any) -> Any:
    """Return the field of a setting.

    Args:
        default: the default value.
        meaning: the effect of the setting on a server that serves.
        allowed: the allowed values, with their unit, for messages about wrong ones.
        bounds: the bounds of the value, for pydantic.
    """
    return Field(default=default, description=meaning, json_schema_extra={"allowed": allowed}, **bounds)


def load_pydantic_plugins() -> None:
    """Make pydantic load its own plugins.

    It does so for the first model, and raises if the metadata of any installed distribution is broken. After that it
    makes models without plugins.
    """
    try:
        create_model("First")
    except BaseException as error:  # a plugin of pydantic, or a finder of distributions, may raise anything
        if is_from_signal(error):
            raise
        log.warning("pydantic cannot load its plugins: %s: %s", type(error).__name__, safe_str(error))
