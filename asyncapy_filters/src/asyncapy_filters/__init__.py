"""The documented filters, and `HasFields`, a looser `Fields`, as a plugin of asyncapy-core."""

from asyncapy_filters.api_keys import APIFactory
from asyncapy_filters.fields import Fields, HasFields
from asyncapy_filters.ip import Ip

__all__ = ["APIFactory", "Fields", "HasFields", "Ip"]
