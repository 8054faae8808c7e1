"""AsyncAPY: serve APIs over AsyncAProto. This package gives the parts their documented names; it holds no code.

`asyncapy.client` connects to servers; `asyncapy.core` has what handlers are given; `asyncapy.errors`,
`asyncapy.filters`, `asyncapy.server` and `asyncapy.util` are what their names say.
"""

from asyncapy_core import Server, __version__

__all__ = ["Server", "__version__"]
