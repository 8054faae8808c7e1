"""Handlers with models for AsyncAPY: parameters filled by their types, dependencies, and requests shared with clients.

`Request` and `StreamRequest` are the bases of requests that a server and its clients share. `Depends` marks a
parameter that a function provides, and `FromContext` one that a filter has found. `invalid` makes the failure for
wrong fields, as a handler raises it itself. `Binary` is the type of a field of bytes.
"""

from asyncapy_typed.binary import Binary
from asyncapy_typed.errors import invalid
from asyncapy_typed.parameters import Depends, FromContext
from asyncapy_typed.requests import Request, StreamRequest

__all__ = ["Binary", "Depends", "FromContext", "Request", "StreamRequest", "invalid"]
