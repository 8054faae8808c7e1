import sys

from asyncapy_core import PluginManager, hookimpl


class Repr:
    name = "repr"
    wire_id = 200

    def encode(self, fields):
        return repr(dict(fields)).encode()

    def decode(self, payload):
        raise ValueError("this codec only writes")


@hookimpl
def asyncapy_codecs():
    return [Repr()]


plugins = PluginManager()
plugins.register(sys.modules[__name__], "example")
assert [codec.name for codec in plugins.codecs()] == ["json", "ziproto", "repr"]
