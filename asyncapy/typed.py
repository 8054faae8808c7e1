"""Handlers with models: `Request` and `StreamRequest` for requests that clients share, `Depends` for dependencies."""

from asyncapy_typed import Binary, Depends, FromContext, Request, StreamRequest, invalid

__all__ = ["Binary", "Depends", "FromContext", "Request", "StreamRequest", "invalid"]
