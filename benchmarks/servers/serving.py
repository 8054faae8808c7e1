"""Runs an ASGI application under uvicorn on a free port, and prints the port."""

import socket
import sys
from typing import Any

import uvicorn


def serve(application: Any) -> None:
    """Serve until the process is ended."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"Serving on 127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
    config = uvicorn.Config(application, access_log=False, log_level="warning", lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])
