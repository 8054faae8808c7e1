"""The plugin module, which the entry point ``codecs`` names."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from asyncapy_codecs.json_codec import JsonCodec
from asyncapy_codecs.ziproto_codec import ZiProtoCodec
from asyncapy_core import Codec, hookimpl


class Options(BaseModel):
    """The options in ``[plugin:codecs]`` (INI) or ``[plugins.codecs]`` (TOML)."""

    engine: Literal["msgspec", "ziproto"] = Field(default="msgspec", description="the implementation of ZiProto")


asyncapy_options = Options


@hookimpl
def asyncapy_codecs(options: Options) -> list[Codec]:
    """Return the JSON and ZiProto codecs."""
    return [JsonCodec(), ZiProtoCodec(options.engine)]
