"""``asyncapy serve``, ``call``, ``explain``, ``plugins``, ``config`` and ``completion``, run as commands."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from commands import APP, SLOW, ask, run, serving
from conftest import Certificates
from numbered_peer import numbered
from peer import json_packet

import asyncapy

ODD = """
from asyncapy import Server
from asyncapy.filters import Filter


class Odd(Filter):
    def check(self, c, p):
        return p["nothing"]

    def __repr__(self):
        return "Odd()"


server = Server()


@server.add_handler(~Odd())
async def handler(c, p): ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.mark.parametrize("target", ["app:server", "app", "app.py", "app.py:server", "./app.py"])
def test_a_server_is_served_by_its_module_or_its_file(folder: Path, target: str) -> None:
    with serving(folder, target) as server:
        assert ask(server.port, foo=1) == {"foo": 1}
        banner = "".join(server.lines)
    for words in (
        "3 handlers in 2 groups",
        "json, ziproto",
        "APIFactory, Fields, HasFields, Ip",
        "1048576 bytes a packet",
    ):
        assert words in banner


def test_a_program_that_starts_its_server_can_be_served_and_explained(folder: Path) -> None:
    (folder / "program.py").write_text(APP + "\n\nserver.start()\n")
    with serving(folder, "program.py", "--port", "0") as server:
        assert ask(server.port, foo=1) == {"foo": 1}
    assert "any_foo runs" in run(folder, "explain", "program", "-", text='{"foo": 1}').stdout


def test_what_stands_behind_the_start_of_a_server_is_done_when_it_has_ended(folder: Path) -> None:
    (folder / "program.py").write_text(
        APP + "\nother.start()\nserver.start()\nimport sys\nprint('cleaned up', file=sys.stderr)\n"
    )
    with serving(folder, "program.py") as server:
        assert ask(server.port, foo=1) == {"foo": 1}
        assert not [line for line in server.lines if "cleaned up" in line]
    assert server.lines[-1] == "cleaned up\n"
    assert "cleaned up" not in run(folder, "explain", "program", "-", text='{"foo": 1}').stderr


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        ("def f():\n    return nowhere\nf()\n", ["f()", "return nowhere", "NameError: name 'nowhere' is not defined"]),
        ("server = Server(\n", ["SyntaxError: '(' was never closed"]),
    ],
)
def test_a_program_that_fails_is_told_by_its_own_lines(folder: Path, program: str, lines: list[str]) -> None:
    (folder / "broken.py").write_text(program)
    done = run(folder, "serve", "broken.py")
    assert done.returncode == 1
    assert all(line in done.stderr for line in lines)
    assert done.stderr.endswith("asyncapy: broken.py raised this exception before it could serve\n")
    assert "importlib" not in done.stderr
    assert "target.py" not in done.stderr


def test_options_come_before_what_the_program_says(folder: Path) -> None:
    (folder / "strict.py").write_text(APP.replace("Server(port=0)", "Server(port=0, max_packet=100, timeout=7)"))
    (folder / "server.toml").write_text("[AsyncAPY]\ntimeout = 8\nsession_limit = 3\n")
    arguments = ("strict.py", "--config", "server.toml", "--max-packet", "5000", "--logging-level", "DEBUG")
    with serving(folder, *arguments) as server:
        assert ask(server.port, foo="x" * 1000) == {"foo": "x" * 1000}
        server.wait_for(r"\[DEBUG\]")
        server.wait_for("5000 bytes a packet, 10000 connections, 3 an address, 7 s")


def test_a_wrong_option_is_one_line_and_status_1(folder: Path) -> None:
    done = run(folder, "serve", "app", "--max-packet", "2")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("asyncapy: max_packet is '2', from the argument max_packet: ")


MISTAKES = {
    "ap:server": "no module is called 'ap' here; did you mean app:server?",
    "nothing_like_it": "no module is called 'nothing_like_it' here; give MODULE:SERVER, or the path of a file",
    "app:srv": "app:srv: there is no 'srv' in app; servers in it: server, other",
    "app:no_root": "app:no_root: no_root is <Registration of <function no_root",
    "none.py": "there is no file none.py; give MODULE:SERVER, or the path of a file",
    "empty.py": "empty.py: there is no 'server' in empty.py; define one, as in server = Server()",
}


@pytest.mark.parametrize(("target", "message"), MISTAKES.items())
def test_a_target_that_is_not_there_is_told_with_what_is(folder: Path, target: str, message: str) -> None:
    (folder / "empty.py").write_text("")
    done = run(folder, "serve", target)
    assert done.returncode == 1
    assert f"Error: {message}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_module_that_imports_what_is_not_there_says_what(folder: Path) -> None:
    (folder / "broken.py").write_text("import nothing_like_it\n")
    done = run(folder, "serve", "broken")
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'nothing_like_it'" in done.stderr


def test_a_port_in_use_is_told(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(folder, "serve", "app", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "stop the program that uses it, or give another port (0 picks a free one)" in done.stderr


def test_a_handler_that_can_never_run_is_told_at_the_start(folder: Path) -> None:
    late = "@server.add_handler(Filters.HasFields(foo=None), Filters.Ip('::1'))\nasync def late(c, p): ...\n"
    (folder / "app.py").write_text(APP + late)
    with serving(folder, "app") as server:
        server.wait_for(r"\[WARNING\].*'late' in group 0 can never run: 'any_foo', before it, takes all of its packets")
        assert not [line for line in server.lines if "'any_foo' in group 0 can never" in line]


def test_a_call_prints_the_reply_and_its_status_tells_what_it_was(folder: Path) -> None:
    with serving(folder, "app") as server:
        where = f"localhost:{server.port}"
        done = run(folder, "call", where, '{"foo": "x"}')
        assert (done.returncode, done.stdout, done.stderr) == (0, '{"foo": "x"}\n', "")
        done = run(folder, "call", where, "--ziproto", "--raw", '{"foo": "x"}')
        assert done.stdout == "00000000  00 00 00 09 16 01 81 a3 66 6f 6f a1 78           ........foo.x\n"
        done = run(folder, "call", where, "-", text='{"foo": 1}\n\n{"foo": 2}\n')
        assert (done.returncode, done.stdout) == (0, '{"foo": 1}\n{"foo": 2}\n')
        done = run(folder, "call", where, '{"user": "root"}')
        assert done.returncode == 1
        assert json.loads(done.stdout) == {"status": "failure", "error": "ERR_NO_HANDLER"}
        assert "check its fields and key" in done.stderr
        json_failure = done.stderr
        done = run(folder, "call", where, "--raw", '{"user": "root"}')
        assert (done.returncode, done.stderr) == (1, json_failure)
        done = run(folder, "call", where, "[1]")
        assert done.returncode == 2
        assert "must be a JSON object" in done.stderr
        for arguments in (["--encoding", "ziproto"], ["--ziproto", "--encoding", "ziproto"], ["--ziproto"]):
            done = run(folder, "call", where, *arguments, "--raw", '{"foo": "x"}')
            assert done.stdout.split()[6:8] == ["01", "81"]
        done = run(folder, "call", where, "--ziproto", "--encoding", "json", '{"foo": "x"}')
        assert done.returncode == 2
        assert "--ziproto and --encoding json exclude each other; leave one out" in done.stderr
        done = run(folder, "call", where, "--encoding", "morse", '{"foo": "x"}')
        assert (done.returncode, "no codec is called 'morse'" in done.stderr) == (2, True)
        done = run(folder, "call", where, "--max-packet", "10", '{"foo": "x"}')
        assert (done.returncode, "at most 10 are accepted (max_packet of the client)" in done.stderr) == (3, True)
        done = run(folder, "call", where, "--header-size", "2", "--timeout", "0.5", '{"foo": 1}')
        assert done.returncode == 3
        assert "asyncapy: " in done.stderr
    done = run(folder, "call", where, '{"foo": 1}')
    assert done.returncode == 3
    assert "is the server running there?" in done.stderr


PARTS = """
from asyncapy import Failure, Server

server = Server(port=0)


@server.add_handler()
async def parts(client, packet):
    for number in range(packet["parts"]):
        await client.send({"n": number})
    if "fail" in packet:
        raise Failure("ERR_GONE", id=7)
"""


def test_a_call_in_version_23_prints_all_answers(folder: Path) -> None:
    (folder / "parts.py").write_text(PARTS)
    with serving(folder, "parts.py") as server:
        where = f"localhost:{server.port}"
        done = run(folder, "call", where, "--version", "23", '{"parts": 2}')
        assert (done.returncode, done.stdout, done.stderr) == (0, '{"n": 0}\n{"n": 1}\n', "")
        done = run(folder, "call", where, "--version", "23", "-", text='{"parts": 0}\n{"parts": 1, "fail": 1}\n')
        failed = '{"status": "failure", "error": "ERR_GONE", "id": 7}'
        assert (done.returncode, done.stdout) == (1, f'{{"n": 0}}\n{failed}\n')
        assert done.stderr == "asyncapy: ERR_GONE: the server's own failure\n"
        done = run(folder, "call", where, "--version", "22", '{"parts": 1}')
        assert (done.returncode, done.stdout) == (0, '{"n": 0}\n')
        done = run(folder, "call", where, "--version", "23", "[1]")
        assert (done.returncode, "must be a JSON object" in done.stderr) == (2, True)
        done = run(folder, "call", where, "--version", "23", "--raw", "{}")
        assert (done.returncode, "--raw prints packets of version 22" in done.stderr) == (2, True)
    done = run(folder, "call", where, "--version", "23", '{"parts": 1}')
    assert (done.returncode, "is the server running there?" in done.stderr) == (3, True)


def test_a_call_shows_a_terminal_nothing_that_moves_its_cursor(folder: Path) -> None:
    (folder / "rude.py").write_text(
        SLOW.replace("await trio.sleep(1)", "packet['\\x9b31m\\x7f'] = '\\x1b[2J käse'").replace(
            "client.send(packet)", "client.send(packet if 'x' in packet else dict(status='failure', error='\\x1b[2J'))"
        )
    )
    with serving(folder, "rude.py") as server:
        ours, theirs = pty.openpty()
        done = subprocess.run(
            [sys.executable, "-m", "asyncapy_cli", "call", f"localhost:{server.port}", '{"x": 1}'],
            stdout=theirs, timeout=60, env={**os.environ, "TERM": "dumb", "COLUMNS": "200"},
        )  # fmt: skip
        os.close(theirs)
        shown = os.read(ours, 10_000).decode()
        os.close(ours)
        assert done.returncode == 0
        assert r"\u009b31m\u007f" in shown
        assert r"\u001b[2J käse" in shown
        assert not re.search("[\x1b\x7f-\x9f]", shown)
        failed = run(folder, "call", f"localhost:{server.port}", '{"y": 1}')
        assert failed.returncode == 1
        assert failed.stderr == "asyncapy: \\x1b[2J: the server's own failure\n"


def test_ctrl_c_and_a_closed_pipe_end_a_call_as_a_shell_expects(folder: Path) -> None:
    (folder / "slow.py").write_text(SLOW.replace("sleep(1)", "sleep(packet['seconds'])"))
    with serving(folder, "slow.py", "--drain-timeout", "0", "--logging-level", "DEBUG") as server:
        command = [sys.executable, "-m", "asyncapy_cli", "call", f"localhost:{server.port}"]
        with subprocess.Popen([*command, '{"seconds": 100}'], stderr=subprocess.DEVNULL) as waiting:
            try:
                server.wait_for("Calling 'slow'")
                waiting.send_signal(signal.SIGINT)
                assert waiting.wait(20) == 130
            finally:
                waiting.kill()
        ends = os.pipe()
        os.close(ends[0])
        done = subprocess.run([*command, '{"seconds": 0}'], stdout=ends[1], stderr=subprocess.PIPE, timeout=60)
        os.close(ends[1])
        assert (done.returncode, done.stderr) == (141, b"")


RESOLVER = """
import socket

real = socket.getaddrinfo
socket.getaddrinfo = lambda host, *args, **kwargs: real(
    "localhost" if host == "localhost." else host, *args, **kwargs
)
"""
"""Finds localhost also with a final dot, which not every system does."""


def test_a_call_speaks_tls(folder: Path, certificates: Certificates) -> None:
    with serving(folder, "app", "--tls-cert", str(certificates.server)) as server:
        where = f"localhost:{server.port}"
        done = run(folder, "call", where, "--ca-file", str(certificates.ca_file), '{"foo": 1}')
        assert (done.returncode, done.stdout) == (0, '{"foo": 1}\n')
        (folder / "sitecustomize.py").write_text(RESOLVER)
        absolute = ("call", f"localhost.:{server.port}", "--ca-file", str(certificates.ca_file), '{"foo": 1}')
        done = run(folder, *absolute, PYTHONPATH=str(folder))
        assert (done.returncode, done.stdout) == (0, '{"foo": 1}\n'), done.stderr
        done = run(folder, "call", where, "--tls", '{"foo": 1}')
        assert done.returncode == 3
        assert "give its CA as ca_file=" in done.stderr


@pytest.mark.parametrize(
    "address", ["localhost", "localhost:", ":80", "localhost:http", "localhost:0", "localhost:70000", "localhost:²"]
)
def test_an_address_that_is_none_is_told(folder: Path, address: str) -> None:
    done = run(folder, "call", address, "{}")
    assert done.returncode == 2
    assert "is not an address; write HOST:PORT, such as localhost:8081 or [::1]:8081" in done.stderr


def test_explain_says_why_a_packet_reaches_a_handler_or_not(folder: Path) -> None:
    (folder / "packet.json").write_text('{"foo": 12, "bar": 1}')
    done = run(folder, "explain", "app", "packet.json")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "guard: no_root passes",
        "    passed  no_root",
        "group 0: numbers does not match",
        "    passed  Fields(foo='\\\\d+', bar=None)",
        "    FAILED  Ip(['10.0.0.0/8'])",
        "group 0: any_foo runs",
        "    passed  HasFields(foo=None)",
        "group 1: everything runs",
        "The packet would reach any_foo, then everything.",
    ]
    done = run(folder, "explain", "app", "packet.json", "--from", "10.1.2.3")
    assert "group 0: numbers runs" in done.stdout
    assert "any_foo would match, but an earlier handler of the group runs" in done.stdout
    mapped = run(folder, "explain", "app", "packet.json", "--from", "::ffff:10.1.2.3")  # a server takes it as IPv4
    assert mapped.stdout == done.stdout
    done = run(folder, "explain", "app", "-", text='{"user": "root", "foo": 1}')
    assert done.returncode == 1
    assert "group 1: everything would match, but a guard refuses it\n" in done.stdout
    assert done.stdout.endswith("A guard refuses it: no handler would run (ERR_NO_HANDLER).\n")
    done = run(folder, "explain", "app", "-", text="[1]")
    assert done.returncode == 1
    assert "must be a JSON object" in done.stderr
    (folder / "latin.json").write_bytes(b'{"a": "\xff"}')
    done = run(folder, "explain", "app", "latin.json")
    assert (done.returncode, "can't decode byte 0xff" in done.stderr) == (1, True)
    done = run(folder, "explain", "app", "packet.json", "--from", "nowhere")
    assert (done.returncode, "'nowhere' does not appear to be an IPv4 or IPv6 address" in done.stderr) == (1, True)


def test_explain_takes_packets_as_they_are_sent_in_both_versions(folder: Path) -> None:
    fields = {"foo": 12, "bar": 1}
    verdicts = run(folder, "explain", "app", "-", text=json.dumps(fields)).stdout
    file = folder / "packet.bin"
    for data, title in (
        (json_packet(**fields), "version 22: a packet in json"),
        (numbered("REQUEST", 7, fields), "version 23: REQUEST 7 in json"),
    ):
        file.write_bytes(data)
        done = run(folder, "explain", "app", "packet.bin")
        assert (done.returncode, done.stdout) == (0, f"{title}\n{verdicts}")
        assert run(folder, "explain", "app", "packet.bin", "--setup").stdout == done.stdout
    file.write_bytes(numbered("CANCEL", 7))
    done = run(folder, "explain", "app", "packet.bin")
    assert (done.returncode, done.stdout.splitlines()) == (
        1,
        [
            "version 23: CANCEL 7",
            "No handler gets it: the server cancels the request with this number, if it is in flight.",
        ],
    )
    for data, complaint in (
        (numbered("REPLY", 7, {}), "the server would answer with ERR_HEADER_INVALID: kind 1, which a server does not"),
        (numbered("REQUEST", 7, payload=b"{"), "the server would answer with ERR_REQUEST_MALFORMED: "),
        (numbered("PING", 7) * 2, "these 22 bytes are not one packet"),
    ):
        file.write_bytes(data)
        done = run(folder, "explain", "app", "packet.bin")
        assert (done.returncode, complaint in done.stderr) == (1, True), done.stderr


def test_a_filter_that_raises_is_explained_too(folder: Path) -> None:
    (folder / "odd.py").write_text(ODD)
    done = run(folder, "explain", "odd", "-", text='{"a": 1}')
    assert done.returncode == 1
    assert "FAILED  ~Odd() (KeyError: 'nothing')" in done.stdout
    assert done.stdout.endswith("No handler would run (ERR_NO_HANDLER).\n")


def test_plugins_are_listed_and_found_well(folder: Path) -> None:
    listed = run(folder, "plugins")
    assert listed.returncode == 0
    for name in ("codecs", "filters", "limits", "metrics", "redis", "sqlite", "typed"):
        assert re.search(rf"^{name}\s+asyncapy-{name}\s+0\.6\.0\.dev0\s+loaded", listed.stdout, re.MULTILINE)
    records = {record["name"]: record for record in json.loads(run(folder, "plugins", "--json").stdout)}
    assert records["codecs"]["hooks"] == ["asyncapy_codecs"]
    done = run(folder, "plugins", "doctor")
    assert (done.returncode, done.stdout) == (0, f"{len(records)} plugins and 2 commands, no problems found.\n")


def test_a_configuration_is_checked(folder: Path) -> None:
    (folder / "good.ini").write_text("[AsyncAPY]\nport = 99\n[plugin:codecs]\nengine = msgspec\n")
    done = run(folder, "config", "check", "good.ini")
    assert (done.returncode, done.stdout, done.stderr) == (0, "port = 99\n", "good.ini is valid.\n")
    for text, message in (
        ("[AsyncAPY]\nport = 99999\n", "port is '99999', from bad.ini, section [AsyncAPY]"),
        ("[AsyncAPY]\nprot = 1\n", "did you mean 'port'?"),
        ("[plugin:codecs]\nengine = steam\n", "options of plugin 'codecs' of asyncapy-codecs"),
        ("[plugin:nobody]\na = 1\n", "there are options for plugin 'nobody'"),
        ("[AsyncAPY]\nplugins_require = nobody\n", "plugin 'nobody' is required but not installed"),
        ("[AsyncAPY]\ntls_cert = nowhere.pem\n", "nowhere.pem"),
        ("[asyncapy]\ntls_cert = server.pem\n[plugin:codecs]\nengine = msgspec\n", "bad.ini: [asyncapy] is not read"),
    ):
        (folder / "bad.ini").write_text(text)
        done = run(folder, "config", "check", "bad.ini")
        assert done.returncode == 1
        assert message in done.stderr


def test_a_plugin_that_fails_as_the_server_would_start_fails_the_check_of_its_configuration(folder: Path) -> None:
    metadata = folder / "broken-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[asyncapy]\nbroken = broken_plugin\n")
    (folder / "broken_plugin.py").write_text(
        "from asyncapy_core import hookimpl\n@hookimpl\ndef asyncapy_codecs():\n    raise ValueError('a slip')\n"
    )
    (folder / "bad.ini").write_text("[AsyncAPY]\nplugins_require = broken\n")
    done = run(folder, "config", "check", "bad.ini", PYTHONPATH=str(folder))
    assert done.returncode == 1
    assert "'broken' of broken 1 is required but quarantined: asyncapy_codecs raised ValueError: a slip" in done.stderr


def test_what_is_wrong_in_a_file_is_told_though_the_environment_hides_it(folder: Path) -> None:
    (folder / "bad.ini").write_text("[AsyncAPY]\nport = many\n")
    done = run(folder, "config", "check", "bad.ini", ASYNCAPY_PORT="1")
    assert (done.returncode, "port is 'many', from bad.ini" in done.stderr) == (1, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(folder: Path, shell: str) -> None:
    done = run(folder, "completion", shell)
    assert done.returncode == 0
    assert "_ASYNCAPY_COMPLETE" in done.stdout


def test_help_lists_every_command(folder: Path) -> None:
    done = run(folder, "--help")
    for command in ("serve", "call", "explain", "plugins", "config", "keys", "completion"):
        assert re.search(rf"^  {command}\s+\S", done.stdout, re.MULTILINE)
        assert run(folder, command, "--help").returncode == 0
    assert run(folder, "--version").stdout == f"asyncapy, version {asyncapy.__version__}\n"


TRIO = """
import trio
from asyncapy import Server

server = Server(port=0)


@server.add_handler()
async def echo(client, packet):
    await client.send(packet)


async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        print("begun")


trio.run(main)
"""


def test_a_program_that_runs_trio_itself_is_served_with_the_options_and_explained_without_a_port(folder: Path) -> None:
    (folder / "own.py").write_text(TRIO)
    with serving(folder, "own.py", "--max-packet", "200") as server:
        assert ask(server.port, a=1) == {"a": 1}
        assert ask(server.port, a="x" * 300) == {"status": "failure", "error": "ERR_PACKET_TOO_LARGE"}
        server.process.send_signal(signal.SIGINT)
        server.process.wait(20)
    assert len([line for line in server.lines if "Serving on" in line]) == 1
    done = run(folder, "explain", "own", "-", text='{"a": 1}')
    assert (done.returncode, "echo runs" in done.stdout, "begun" in done.stdout) == (0, True, False), done.stderr


def test_other_servers_of_a_program_are_not_started(folder: Path) -> None:
    (folder / "two.py").write_text(APP + "\n\nother.start()\nserver.start()\nother.start()\n")
    with serving(folder, "two.py") as server:
        assert ask(server.port, foo=1) == {"foo": 1}
        assert server.end() == 0
    assert len([line for line in server.lines if "Serving on" in line]) == 1


ONLY_ANOTHER = """
import trio
from asyncapy import Server

server = Server(port=0)
other = Server(port=0)


@server.add_handler()
async def echo(client, packet): ...


async def main():
    async with trio.open_nursery() as nursery:
        address, *_ = await nursery.start(other.serve)
        print("another server at", address)
    await other.serve()


trio.run(main)
"""


def test_explain_serves_no_other_server_of_a_program_either(folder: Path) -> None:
    (folder / "another.py").write_text(ONLY_ANOTHER)
    done = run(folder, "explain", "another.py", "-", text='{"a": 1}')
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "another server at ('127.0.0.1', 0)"
    assert done.stdout.endswith("The packet would reach echo.\n")


@pytest.mark.parametrize("package", [True, False], ids=["a package", "no package"])
@pytest.mark.parametrize("target", ["inner/main.py", "inner/deep/main.py:server"])
def test_a_file_with_relative_imports_is_served_as_a_module_of_its_package(
    folder: Path, target: str, package: bool
) -> None:
    deep = "deep" in target
    (folder / "inner" / "deep").mkdir(parents=True)
    for each in (folder / "inner", folder / "inner" / "deep"):
        if package:
            (each / "__init__.py").write_text("")
    (folder / "inner" / "names.py").write_text("WORD = 'hello'\n")
    program = APP.replace("client.send(packet)", "client.send({'word': WORD, 'module': __name__})")
    (folder / target.partition(":")[0]).write_text(f"from .{'.' * deep}names import WORD\n{program}")
    with serving(folder, target) as server:
        assert ask(server.port, foo=1) == {"word": "hello", "module": "inner.deep.main" if deep else "inner.main"}
    assert "any_foo runs" in run(folder, "explain", target, "-", text='{"foo": 1}').stdout


def test_a_package_with_the_name_of_another_is_named(folder: Path) -> None:
    (folder / "json").mkdir()
    (folder / "json" / "main.py").write_text("from . import names\n")
    done = run(folder, "serve", "json/main.py")
    assert (done.returncode, "is in a package 'json', as another one is called; rename it" in done.stderr) == (1, True)


def test_a_file_in_a_package_without_relative_imports_is_served_alone(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "__init__.py").write_text("raise SystemExit('imported')\n")
    (folder / "inner" / "beside.py").write_text("")
    (folder / "inner" / "main.py").write_text(f"import beside\n{APP}")
    assert "any_foo runs" in run(folder, "explain", "inner/main.py", "-", text='{"foo": 1}').stdout


def test_a_server_without_handlers_says_so(folder: Path) -> None:
    (folder / "main.py").write_text(
        "from asyncapy import Server\nserver = Server(port=0)\n"
        "async def echo(c, p): ...\nif __name__ == '__main__':\n    server.register_handler(echo)\n    server.start()\n"
    )
    with serving(folder, "main.py") as server:
        server.wait_for("No handler is registered.*not under if __name__ == '__main__'")


KEYED = """
from asyncapy import Server
from asyncapy.filters import Filters
from asyncapy.util import APIKeyFactory

keys = APIKeyFactory()
server = Server(port=0)

@server.add_handler(Filters.APIFactory(keys, "key", tell=True))
async def members(client, packet):
    return {"welcome": True}

@server.add_handler()
async def others(client, packet):
    return {"welcome": False}
"""


def test_explain_names_the_failure_with_which_a_filter_answers(folder: Path) -> None:
    (folder / "keyed.py").write_text(KEYED)
    done = run(folder, "explain", "keyed", "-", text='{"key": "wrong"}')
    assert (done.returncode, done.stdout.splitlines()) == (
        1,
        [
            "group 0: members answers with ERR_UNAUTHORIZED",
            "    FAILED  APIFactory(<APIKeyFactory>, 'key') (Failure: ERR_UNAUTHORIZED)",
            "group 0: others would match, but a filter has answered",
            "No handler would run (ERR_UNAUTHORIZED).",
        ],
    )
    (folder / "guarded.py").write_text(KEYED + '\nserver.guard(Filters.APIFactory(keys, "key"))\n')
    done = run(folder, "explain", "guarded", "-", text='{"key": "wrong"}')
    assert done.stdout.splitlines()[0] == "guard: APIFactory(<APIKeyFactory>, 'key') answers with ERR_UNAUTHORIZED"
    assert done.stdout.endswith("A guard refuses it: no handler would run (ERR_UNAUTHORIZED).\n")
