import sys

from asyncapy.filters import Filter, Filters
from asyncapy_core import hookimpl
from asyncapy_core.plugins import default_manager


class Long(Filter):
    def check(self, c, p):
        return len(p.fields) > 3


@hookimpl
def asyncapy_filters():
    return {"Long": Long}


default_manager().register(sys.modules[__name__], "example")
assert Filters.Long is Long
