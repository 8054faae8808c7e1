"""The codecs of the protocol: JSON (wire id 0) and ZiProto (wire id 1), as a plugin of asyncapy-core."""

from asyncapy_codecs.json_codec import JsonCodec
from asyncapy_codecs.ziproto_codec import ZiProtoCodec

__all__ = ["JsonCodec", "ZiProtoCodec"]
