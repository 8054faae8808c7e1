"""For tests, of this project and of those who write plugins and servers for it.

`serving` has a server serve in memory; the plugin of pytest in `asyncapy_core.testing.fixtures` has a fixture for it.
`Detached` is a client to call handlers and filters with. The contracts are what codecs, filters and key
stores have to do, as tests.
"""

from asyncapy_core.server.detached import Detached
from asyncapy_core.testing.codecs import CodecContract
from asyncapy_core.testing.filters import FilterContract, Sample
from asyncapy_core.testing.keystores import KeyStoreContract
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
