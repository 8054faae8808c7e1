"""Tools for the tests of servers and plugins.

`serving` runs a server in memory; the pytest plugin in `asyncapy_core.testing.fixtures` has a fixture for it.
`Detached` is a client for calling handlers and filters. The contracts are tests that every codec, filter or key store
has to pass.
"""

from asyncapy_core.server.detached import Detached
from asyncapy_core.testing.codec_contract import CodecContract
from asyncapy_core.testing.filter_contract import FilterContract, Sample
from asyncapy_core.testing.key_store_contract import KeyStoreContract
from asyncapy_core.testing.memory import ServerInMemory, serving

__all__ = [
    "CodecContract",
    "Detached",
    "FilterContract",
    "KeyStoreContract",
    "Sample",
    "ServerInMemory",
    "serving",
]
