"""trio alone: each frame is cut off the stream by its length and sent back; nothing is decoded, checked or timed.

Given the path of a certificate with its key, it uses TLS.
"""

import ssl
import sys

import trio


async def echo(stream: trio.abc.Stream) -> None:
    """Send each frame back."""
    buffer = b""
    try:
        while data := await stream.receive_some():
            buffer += data
            while len(buffer) >= 4 and len(buffer) >= (end := 4 + int.from_bytes(buffer[:4], "big")):
                await stream.send_all(buffer[:end])
                buffer = buffer[end:]
    except trio.BrokenResourceError:
        return


async def main() -> None:
    """Serve on a free port, and print the port."""
    async with trio.open_nursery() as nursery:
        if sys.argv[1:]:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(sys.argv[1])
            listeners = await nursery.start(trio.serve_ssl_over_tcp, echo, 0, context)
            port = listeners[0].transport_listener.socket.getsockname()[1]
        else:
            listeners = await nursery.start(trio.serve_tcp, echo, 0)
            port = listeners[0].socket.getsockname()[1]
        print(f"Serving on 127.0.0.1:{port}", file=sys.stderr, flush=True)


trio.run(main)
