"""uvicorn with a bare ASGI application: the body is parsed as JSON and dumped again. httptools and uvloop are on."""

import json
from typing import Any

from serving import serve


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send the JSON body back."""
    body = b""
    more = scope["type"] == "http"
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    reply = json.dumps(json.loads(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": reply})


serve(application)
