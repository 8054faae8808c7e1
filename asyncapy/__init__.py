"""AsyncAPY: serve APIs over AsyncAProto. This package re-exports the parts under their documented names.

`asyncapy.client` has the clients, `asyncapy.core` the arguments of handlers, `asyncapy.errors` the exceptions,
`asyncapy.filters` the filters, `asyncapy.server` the server, `asyncapy.typed` handlers with models and `asyncapy.util`
the factory of API keys.

`Client` is `asyncapy.core.Client`, the argument of handlers; the client of a server is `asyncapy.client.Client`.
"""

from asyncapy_core import Client, Failure, Packet, Router, Server, __version__

__all__ = ["Client", "Failure", "Packet", "Router", "Server", "__version__"]
