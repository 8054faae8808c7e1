"""The program of `make demo`: starts demo_server.py on a free port, and prints and checks each exchange with it."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asyncapy.client import Client

SERVER = Path(__file__).with_name("demo_server.py")


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


def main() -> int:
    demo = Demo()
    print(f"Starting {SERVER.name} on a free port of 127.0.0.1")
    with subprocess.Popen([sys.executable, str(SERVER)], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            line = server.stderr.readline().rstrip()
            print(f"  {line}")
            found = re.search(r"Serving on 127\.0\.0\.1:(\d+)", line)
            if found is None:
                print(f"The server did not start. {server.stderr.read()}")
                return 1
            talk(demo, int(found[1]))
        finally:
            server.terminate()
        log = server.stderr.read()
    demo.title("The log of the server")
    print("".join(f"  {line}\n" for line in log.splitlines()))
    print(f"The server ended with status {server.returncode} after SIGTERM.")
    wrong = demo.wrong + (server.returncode != 0)
    print(f"{wrong} checks failed." if wrong else "All checks passed.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
