"""AsyncAPY: serve APIs over AsyncAProto. This package gives the parts their documented names; it holds no code.

`asyncapy.client` connects to servers; `asyncapy.core` has what handlers are given; `asyncapy.errors`,
`asyncapy.filters`, `asyncapy.server` and `asyncapy.util` are what their names say.

`Client` here is `asyncapy.core.Client`, which handlers are called with; the client that connects to a server is
`asyncapy.client.Client`.
"""

from asyncapy_core import Client, Packet, Server, __version__

__all__ = ["Client", "Packet", "Server", "__version__"]
