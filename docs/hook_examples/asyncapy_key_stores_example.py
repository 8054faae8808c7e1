import sys

from asyncapy.util import APIKeyFactory
from asyncapy_core import MemoryKeyStore, hookimpl
from asyncapy_core.plugins import default_manager


@hookimpl
def asyncapy_key_stores():
    return {"example": lambda url: MemoryKeyStore()}


default_manager().register(sys.modules[__name__], "example")
factory = APIKeyFactory(store="example://")
key = factory.issue()
assert factory.get(key) is not None
