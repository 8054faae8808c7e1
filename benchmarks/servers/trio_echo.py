"""trio alone: each frame is cut off the stream by its length and sent back; nothing is decoded, checked or timed."""

import sys

import trio


async def echo(stream: trio.SocketStream) -> None:
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
    """Serve on a free port, and say on which."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, echo, 0)
        print(f"Serving on 127.0.0.1:{listeners[0].socket.getsockname()[1]}", file=sys.stderr, flush=True)


trio.run(main)
