"""The plugin module, which the entry point ``metrics`` names.

The modules that import prometheus-client and h11 are imported by the first server that has a port for metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from asyncapy_core import hookimpl

if TYPE_CHECKING:
    import trio

    from asyncapy_core import Server


class Options(BaseModel):
    """The options in ``[plugin:metrics]`` (INI) or ``[plugins.metrics]`` (TOML)."""

    port: int | None = Field(
        default=None, ge=0, le=65535, description="the TCP port for scrapes; 0 picks a free one, none turns metrics off"
    )
    address: str = Field(default="127.0.0.1", min_length=1, description="the address of that port")
    path: str = Field(default="/metrics", pattern=r'^/[!"$->@-~]*$', description="the path of the metrics")


asyncapy_options = Options


@hookimpl
async def asyncapy_run(server: Server, options: Options, task_status: trio.TaskStatus[None]) -> None:
    """Answer scrapes until the server has drained."""
    if options.port is None:
        return
    from asyncapy_metrics.scrapes import serve_scrapes  # noqa: PLC0415  # see above

    await serve_scrapes(server, options.address, options.port, options.path, task_status)
