import sys
from types import SimpleNamespace

from asyncapy import Server
from asyncapy_core import PluginManager, hookimpl, hookspec


@hookspec
def example_labels(handler):
    """Return labels for a handler."""


@hookimpl
def asyncapy_hookspecs():
    return sys.modules[__name__]


@hookimpl(specname="example_labels")
def labels(handler):
    return {"handler": handler}


plugins = PluginManager()
plugins.register(sys.modules[__name__], "example")
other = SimpleNamespace(example_labels=hookimpl(lambda: {"team": "green"}))
plugins.register(other, "other")
server = Server(plugins=plugins)
assert server.hooks.call("example_labels", handler="echo") == [{"handler": "echo"}, {"team": "green"}]
