"""AsyncAPY: serve APIs over AsyncAProto. This package re-exports the parts under their documented names.

`asyncapy.client` has the clients, `asyncapy.core` the arguments of handlers, `asyncapy.errors` the exceptions,
`asyncapy.filters` the filters, `asyncapy.server` the server and `asyncapy.util` the factory of API keys.
"""

from asyncapy_core import Server, __version__

__all__ = ["Server", "__version__"]
