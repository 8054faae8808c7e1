"""The program of `make demo`: starts demo_server.py and then the inventory, and prints and checks each exchange."""

import json
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from asyncapy.client import Client
from asyncapy.util import APIKeyFactory

SERVER = Path(__file__).with_name("demo_server.py")
INVENTORY = Path(__file__).with_name("inventory")
sys.path.insert(0, str(INVENTORY))

from models import AddItem, Item, ListItems, ReadItem  # noqa: E402  # they are in the folder of the inventory


class Demo:
    """Prints the packets of each exchange, and counts the unexpected replies."""

    def __init__(self) -> None:
        self.wrong = 0

    def title(self, text: str) -> None:
        print(f"\n== {text}")

    def sent(self, what: str) -> None:
        print(f"  -> {what}")

    def received(self, what: str, good: bool, expected: object) -> None:
        print(f"  <- {what}{'' if good else f'   WRONG, expected {expected}'}")
        self.wrong += not good

    def exchange(self, client: Client, payload: dict[str, Any], *expected: dict[str, Any]) -> None:
        """Send a packet and check the replies."""
        self.sent(json.dumps(payload))
        client.send(payload)
        for wanted in expected:
            reply = client.receive()
            self.received(json.dumps(reply), reply == wanted, wanted)

    def call(self, client: Client, request: AddItem | ReadItem, expected: Item, extra: dict[str, str]) -> None:
        """Send a request of the inventory and check its answer."""
        self.sent(repr(request))
        item = client.call(request, extra=extra)
        self.received(repr(item), item == expected, expected)

    def ended(self, process: subprocess.Popen[str]) -> None:
        """Check that a server has ended in order."""
        print(f"The server ended with status {process.returncode} after SIGTERM.")
        self.wrong += process.returncode != 0

    def exchange_raw(self, client: Client, payload: dict[str, Any], expected: str) -> None:
        """Send a packet and check the bytes of its reply."""
        self.sent(json.dumps(payload))
        client.send(payload)
        raw = client.receive_raw().hex(" ")
        self.received(raw, raw == expected, expected)


def speak_json(demo: Demo, client: Client) -> None:
    demo.title("JSON: the echo server sends each packet back")
    demo.exchange(client, {"test": 1}, {"test": 1})
    demo.exchange_raw(client, {"foo": "bar"}, "00 00 00 0f 16 00 7b 22 66 6f 6f 22 3a 22 62 61 72 22 7d")

    demo.title("A filter: foo is a number, bar anything")
    demo.exchange(client, {"foo": 12355, "bar": "anything"}, {"filtered": True, "foo": 12355})
    demo.exchange(client, {"foo": "twelve", "bar": "anything"}, {"foo": "twelve", "bar": "anything"})

    demo.title("Two groups: the handler of group -1 comes before that of group 0")
    demo.exchange(client, {"groups": "please"}, {"group": -1}, {"groups": "please"})

    demo.title("An API key: issued, used, and refused when it is wrong")
    demo.sent('{"subscribe": "alice"}')
    client.send({"subscribe": "alice"})
    reply = client.receive()
    demo.received(json.dumps(reply), len(str(reply.get("key"))) == 32, "a key of 32 characters")
    demo.exchange(client, {"key": reply.get("key"), "hello": 1}, {"welcome": "alice"})
    demo.exchange(client, {"key": "wrong"}, {"status": "failure", "error": "ERR_NO_HANDLER"})


def speak_ziproto(demo: Demo, client: Client) -> None:
    demo.title("ZiProto: the same fields in fewer bytes")
    demo.exchange(client, {"test": 1}, {"test": 1})
    demo.exchange_raw(client, {"foo": "bar"}, "00 00 00 0b 16 01 81 a3 66 6f 6f a3 62 61 72")


def send_a_bad_packet(demo: Demo, port: int) -> None:
    demo.title("A bad packet: protocol version 17")
    bad = b"\x00\x00\x00\x10\x11\x00" + b'{"foo": "bar"}'
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        demo.sent(bad.hex(" "))
        connection.sendall(bad)
        connection.shutdown(socket.SHUT_WR)
        reply = b"".join(iter(lambda: connection.recv(4096), b""))
    expected = {"status": "failure", "error": "ERR_HEADER_INVALID"}
    demo.received(f"{reply[6:].decode()}, and the connection is closed", json.loads(reply[6:]) == expected, expected)


def talk(demo: Demo, port: int) -> None:
    speakers: dict[str, Callable[[Demo, Client], None]] = {"json": speak_json, "ziproto": speak_ziproto}
    for encoding, speak in speakers.items():
        with Client(tls=False, encoding=encoding, timeout=10) as client:
            client.connect("127.0.0.1", port)
            speak(demo, client)
    send_a_bad_packet(demo, port)


def call_the_inventory(demo: Demo, port: int, key: str) -> None:
    extra = {"key": key}
    hammer, nail = (
        Item(id=1, name="hammer", count=3, owner="alice"),
        Item(id=2, name="nail", count=500, owner="alice"),
    )
    requests = (("json", AddItem(name="hammer", count=3), hammer), ("ziproto", AddItem(name="nail", count=500), nail))
    for encoding, request, expected in requests:
        demo.title(f"The inventory: a request and its answer are objects, {encoding} on the wire")
        with Client(tls=False, encoding=encoding, timeout=10, version=23) as client:
            client.connect("127.0.0.1", port)
            demo.call(client, request, expected, extra)
            demo.call(client, ReadItem(id=expected.id), expected, extra)

    with Client(tls=False, timeout=10, version=23) as client:
        client.connect("127.0.0.1", port)
        demo.title("A validation error names the wrong fields")
        wrong = {"op": "items.add", "name": "", "count": "many"}
        demo.sent(json.dumps(wrong))
        reply = client.request({**wrong, **extra})
        places = [field["loc"] for field in reply["fields"]]
        demo.received(json.dumps(reply), places == [["name"], ["count"]], "ERR_INVALID for name and count")

        demo.title("A stream: as many answers as there are items")
        demo.sent(repr(ListItems()))
        for expected, item in zip((hammer, nail), client.stream_call(ListItems(), extra=extra), strict=True):
            demo.received(repr(item), item == expected, expected)


@contextmanager
def serving(command: list[str], folder: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a server, and yield its process and its port; stop it at the end of the block."""
    with subprocess.Popen([sys.executable, *command], cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            written = ""
            for line in process.stderr:
                written += line
                if found := re.search(r"Serving on 127\.0\.0\.1:(\d+)", line):
                    print(f"  {line.rstrip()}")
                    yield process, int(found[1])
                    return
            raise SystemExit(f"The server did not start. {written}")
        finally:
            process.terminate()


def show_the_echo_server(demo: Demo) -> None:
    print(f"Starting {SERVER.name} on a free port of 127.0.0.1")
    with serving([str(SERVER)]) as (process, port):
        talk(demo, port)
        process.terminate()
        assert process.stderr is not None
        log = process.stderr.read()
    demo.title("The log of the server")
    print("".join(f"  {line}\n" for line in log.splitlines()))
    demo.ended(process)


def show_the_inventory(demo: Demo) -> None:
    print("\nStarting inventory/app.py on a free port of 127.0.0.1, with an API key for alice")
    with tempfile.TemporaryDirectory() as folder:
        with closing(APIKeyFactory(store=f"sqlite:///{folder}/keys.db")) as keys:
            key = keys.issue({"owner": "alice"})
        command = ["-m", "asyncapy_cli", "serve", str(INVENTORY / "app.py"), "--port", "0"]
        with serving(command, Path(folder)) as (process, port):
            call_the_inventory(demo, port, key)
            process.terminate()
            process.communicate()
    print()
    demo.ended(process)


def main() -> int:
    demo = Demo()
    show_the_echo_server(demo)
    show_the_inventory(demo)
    print(f"{demo.wrong} checks failed." if demo.wrong else "All checks passed.")
    return 1 if demo.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
