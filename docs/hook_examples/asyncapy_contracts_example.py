import sys

from asyncapy.filters import Filter
from asyncapy_core import PluginManager, hookimpl
from asyncapy_core.testing import FilterContract


class Long(Filter):
    def check(self, c, p):
        return len(p.fields) > 3

    def __repr__(self):
        return "Long()"


class LongContract(FilterContract):
    passing = ({"a": 1, "b": 2, "c": 3, "d": 4},)
    failing = ({"a": 1}, {})

    def filter(self):
        return Long()


@hookimpl
def asyncapy_filters():
    return {"Long": Long}


@hookimpl
def asyncapy_contracts():
    return [LongContract]


plugins = PluginManager()
plugins.register(sys.modules[__name__], "example")
assert LongContract in [contract for _, contract in plugins.contracts()]
