"""``asyncapy plugins``, its ``doctor`` and its ``test``, over plugins in a folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from core.plugins.conftest import Site

OPTIONS = """
import pydantic

class asyncapy_options(pydantic.BaseModel):
    url: str
    tries: int = 3
    mode: "Literal['a', 'b'] | None" = pydantic.Field(None, alias="mode-of-work")
    secret: pydantic.SecretStr = pydantic.SecretStr("hunter2")
    names: list[str] = pydantic.Field(default_factory=list)

from typing import Literal
asyncapy_options.model_rebuild()

class Codec:
    name, wire_id = "json", 0
    def encode(self, fields):
        return b"..."
    def decode(self, payload):
        return {}

@hookimpl
def asyncapy_codecs(options):
    return [Codec()]

@hookimpl
def asyncapy_filters():
    return {"Ip": Filters.Fields, "Mine": Filters.Fields}

@hookimpl
def asyncapy_key_stores():
    return {"mine": MemoryKeyStore}
"""


def listed(site: Site) -> dict[str, dict[str, Any]]:
    done = site.asyncapy("plugins", "--json")
    assert done.returncode == 0, done.stderr
    return {record["name"]: record for record in json.loads(done.stdout)}


def test_the_names_that_each_plugin_provides_are_listed(site: Site) -> None:
    site.install("plug", OPTIONS)
    records = listed(site)
    assert records["codecs"]["codecs"] == {"json": 0, "ziproto": 1}
    assert records["codecs"]["options"][0]["name"] == "engine"
    assert records["filters"]["filters"] == ["APIFactory", "Fields", "HasFields", "Ip"]
    assert records["filters"]["contested"] == ["Ip"]
    assert records["plug"]["filters"] == ["Ip", "Mine"]
    assert records["plug"]["key_stores"] == ["mine"]
    assert records["plug"]["codecs"] == {}  # they need options
    assert records["plug"]["hooks"] == ["asyncapy_codecs", "asyncapy_filters", "asyncapy_key_stores"]
    assert [(each["name"], each["type"], each["default"]) for each in records["plug"]["options"]] == [
        ("url", "str", None),
        ("tries", "int", "3"),
        ("mode-of-work", "Optional[Literal['a', 'b']]", "None"),
        ("secret", "pydantic.types.SecretStr", "SecretStr('**********')"),
        ("names", "list[str]", "computed"),
    ]
    done = site.asyncapy("plugins")
    for row in (
        r"codecs +codec +json \(wire id 0\)",
        r"codecs +option +engine: Literal\['msgspec', 'ziproto'\] = 'msgspec'",
        r"plug +filter +Ip \(contested\)",
        r"plug +filter +Mine",
        r"plug +key store +mine://",
        r"plug +option +url: str, required",
        r"sqlite +key store +sqlite://",
    ):
        assert re.search(f"^{row} *$", done.stdout, re.MULTILINE), done.stdout
    assert "hunter2" not in done.stdout


def test_an_option_whose_default_has_no_text_is_listed(site: Site) -> None:
    source = """
    import pydantic

    class Odd:
        def __repr__(self):
            raise RuntimeError

    class asyncapy_options(pydantic.BaseModel, arbitrary_types_allowed=True):
        odd: Odd = Odd()
    """
    site.install("plug", source)
    assert [each["default"] for each in listed(site)["plug"]["options"]] == ["an object of type Odd"]


def doctor(site: Site, *arguments: str, status: int = 1, **environ: Any) -> str:
    done = site.asyncapy("plugins", "doctor", *arguments, **environ)
    assert "Traceback" not in done.stderr
    assert done.returncode == status, done
    return done.stdout + done.stderr


def test_doctor_takes_a_missing_option_for_a_note_unless_there_is_a_configuration(site: Site) -> None:
    site.install("plug", OPTIONS.replace('"json", 0', '"mine", 9').replace('"Ip": Filters.Fields, ', ""))
    assert "note: options of plugin 'plug' of plug 1.0: url: Field required" in doctor(site, status=0)
    (site.folder / "good.ini").write_text("[plugin:plug]\nurl = x\n")
    found = doctor(site, "--config", "good.ini", status=0)
    assert found == f"{len(listed(site))} plugins and 2 commands, no problems found.\n"
    (site.folder / "bad.ini").write_text("[AsyncAPY]\nport = 1\n")
    assert "options of plugin 'plug' of plug 1.0: url: Field required" in doctor(site, "--config", "bad.ini")
    assert "tries: Input should be a valid integer" in doctor(site, ASYNCAPY_PLUGIN_PLUG__TRIES="many")


@pytest.mark.parametrize(
    ("text", "environ", "words"),
    [
        ("", {"ASYNCAPY_PORT": "many"}, "port is 'many', from the environment variable ASYNCAPY_PORT"),
        ("", {"ASYNCAPY_PLUGINS_DENY": "nowhere"}, "no plugin is called 'nowhere', which is on the deny list"),
        ("", {"ASYNCAPY_PLUGINS_DENY": "a b"}, "is no name of a plugin"),
        ("", {"ASYNCAPY_PLUGINS_DENY": "codecs"}, "no codec is installed"),
        ("", {"ASYNCAPY_PLUGINS_REQUIRE": "nowhere"}, "plugin 'nowhere' is required but not installed"),
        ("", {"ASYNCAPY_TLS_CERT": "nowhere.pem"}, "nowhere.pem"),
        ("", {"ASYNCAPY_PLUGIN_NOWHERE__A": "1"}, "there are options for plugin 'nowhere'"),
        ("[asyncapy]\nport = 1\n", {}, "[asyncapy] is not read"),
        ("[plugin:codecs]\nengine = steam\n", {}, "options of plugin 'codecs'"),
        ("[plugin:nowhere]\na = 1\n", {}, "there are options for plugin 'nowhere'"),
        ("[AsyncAPY]\nplugins_require = nowhere\n", {}, "plugin 'nowhere' is required but not installed"),
        ("[AsyncAPY]\nplugins_deny = nowhere\n", {}, "no plugin is called 'nowhere', which is on the deny list"),
    ],
)
def test_doctor_finds_what_keeps_a_server_from_starting(
    site: Site, text: str, environ: dict[str, Any], words: str
) -> None:
    (site.folder / "server.ini").write_text(text)
    assert words in doctor(site, *(["--config", "server.ini"] if text else []), **environ)


def test_doctor_finds_two_codecs_with_one_name(site: Site) -> None:
    site.install("plug", OPTIONS.replace("(options)", "()"))
    text = doctor(site)
    for words in ("wire id '0' is claimed by", "codec 'json' is claimed by", "filter 'Ip' is claimed by"):
        assert words in text


def test_doctor_finds_all_faults_at_once(site: Site) -> None:
    site.install("plug", OPTIONS.replace("(options)", "()"))
    site.install("broken", "raise ValueError('a slip')")
    (site.folder / "server.ini").write_text("[AsyncAPY]\nplugins_require = broken\n[plugin:codecs]\nengine = steam\n")
    done = site.asyncapy("plugins", "doctor", "--config", "server.ini")
    for words in (
        "'Ip' is claimed",
        "broken 1.0 is quarantined",
        "is required but quarantined",
        "engine",
        "url: Field",
    ):
        assert words in done.stdout
    assert "raise ValueError('a slip')" in done.stderr


CONTRACT = """
class Mine(Filter):
    def check(self, c, p):
        return RESULT

    def __repr__(self):
        return "Mine()"

@hookimpl
def asyncapy_filters():
    return {"Mine": Mine, "Other": Filters.Ip}

@hookimpl
def asyncapy_contracts():
    from asyncapy_core.testing import FilterContract

    class MineContract(FilterContract):
        passing = ({"a": 1},)
        failing = ({"a": 2}, {})

        def filter(self):
            return Mine()

    return [MineContract]
"""


def test_the_contracts_run_over_all_plugins(site: Site) -> None:
    site.install("plug", CONTRACT.replace("RESULT", "p.get('a') == 1").replace(', "Other": Filters.Ip', ""))
    done = site.asyncapy("plugins", "test", "--store", f"sqlite:///{site.folder / 'keys.db'}")
    assert done.returncode == 0, done
    tested = re.findall(r"^(.*?) of plugin '(\w+)'.*: \d+ passed$", done.stdout, re.MULTILINE)
    assert tested == [
        ("FieldsContract", "filters"),
        ("HasFieldsContract", "filters"),
        ("IpContract", "filters"),
        ("APIFactoryContract", "filters"),
        ("RateContract", "limits"),
        ("MineContract", "plug"),
        ("codec 'json'", "codecs"),
        ("codec 'ziproto'", "codecs"),
    ]
    assert re.search(r"^key store sqlite://: \d+ passed$", done.stdout, re.MULTILINE)
    assert "not tested: key store redis:// of plugin 'redis'" in done.stderr
    assert "sqlite://" not in done.stderr
    assert "filter" not in done.stderr


def test_a_contract_that_is_broken_is_shown_with_the_place(site: Site) -> None:
    site.install("plug", CONTRACT.replace("RESULT", "p['a'] == 1"))
    done = site.asyncapy("plugins", "test", "plug")
    assert done.returncode == 1
    assert re.search(r"^MineContract of plugin 'plug' of plug 1\.0: \d of \d+ failed$", done.stdout, re.MULTILINE)
    assert "    test_raises_nothing_whatever_a_peer_sends: KeyError: 'a'\n        /" in done.stdout
    assert "plug.py:" in done.stdout
    assert "codec" not in done.stdout
    assert "not tested: filter Other of plugin 'plug' of plug 1.0, which brings no contract for it" in done.stderr


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("return [5]", "asyncapy_contracts raised TypeError: 5 is not a contract: a class whose abstract methods are"),
        ("from asyncapy_core.testing import CodecContract; return [CodecContract]", "is not a contract"),
        ("raise ValueError('a slip')", "asyncapy_contracts raised ValueError: a slip"),
        ("return None", "expected contract classes in a list, got None"),
        ("return [type('Odd', (), {'test_a': lambda self: 1 / 0})]", "test_a: ZeroDivisionError: division by zero"),
        ("return [type('Odd', (), {'test_a': lambda self: exit()})]", "test_a: SystemExit: None"),
        (
            "return [type('Odd', (), {'__init__': lambda self, a: 1, 'test_a': 5, 'test_b': print})]",
            "test_b: TypeError",
        ),
    ],
)
def test_contracts_that_are_none_are_told(site: Site, source: str, words: str) -> None:
    site.install("plug", f"@hookimpl\ndef asyncapy_contracts():\n    {source}")
    done = site.asyncapy("plugins", "test")
    assert (done.returncode, words in done.stdout, "Traceback" in done.stderr) == (1, True, False), done


def test_a_codec_that_breaks_its_contract_is_found_without_one_of_its_plugin(site: Site) -> None:
    site.install("plug", OPTIONS.replace("(options)", "()").replace('"json", 0', '"mine", 9'))
    done = site.asyncapy("plugins", "test", "plug")
    assert (done.returncode, "codec 'mine' of plugin 'plug' of plug 1.0: " in done.stdout) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (["nowhere"], {}, "plugin 'nowhere' is required but not installed"),
        ([], {"PYTHONOPTIMIZE": "1"}, "the contracts consist of assertions; run Python without -O"),
        (["--store", "memory://"], {}, "keys in memory belong to one handle; give another store"),
        (["--store", "nowhere://x"], {}, "no installed plugin provides key stores for nowhere://"),
    ],
)
def test_a_run_that_cannot_begin_is_one_line(
    site: Site, arguments: list[str], environ: dict[str, str], words: str
) -> None:
    done = site.asyncapy("plugins", "test", *arguments, **environ)
    assert (done.returncode, done.stderr.count("\n"), words in done.stderr) == (1, 1, True), done


def test_a_store_with_keys_is_not_tested(site: Site, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'keys.db'}"
    assert site.asyncapy("keys", "issue", "--store", url).returncode == 0
    done = site.asyncapy("plugins", "test", "--store", url)
    assert (done.returncode, "has keys in it, which the tests would remove; give another" in done.stderr) == (1, True)
    assert len(json.loads(site.asyncapy("keys", "list", "--json", "--store", url).stdout)) == 1


PING = """
@hookimpl
def asyncapy_setup(server):
    async def ping(client, packet): ...
    server.register_handler(ping, Filters.HasFields(ping=None))
    print("set up")

@hookimpl
def asyncapy_shutdown():
    print("shut down")
"""
PROGRAM = """
import os
from asyncapy_core import Filters, Server

class Own(Server):
    async def setup(self):
        self.guard(Filters.HasFields(key=None))

server = Own(port=0) if os.environ.get("OWN") else Server(port=0)

@server.add_handler(Filters.HasFields(other=None))
async def other(client, packet): ...
"""


def explained(site: Site, packet: str, *options: str, **environ: str) -> tuple[int, str, str]:
    (site.folder / "packet.json").write_text(packet)
    done = site.asyncapy("explain", "program.py", "packet.json", *options, **environ)
    return done.returncode, done.stdout, done.stderr


def test_explain_says_which_setups_it_has_not_run_and_runs_them_if_it_is_asked_to(site: Site) -> None:
    site.install("ping", PING)
    (site.folder / "program.py").write_text(PROGRAM)
    status, output, errors = explained(site, '{"ping": 1}')
    assert status == 1
    assert output.endswith("No handler that is registered before the start would run (ERR_NO_HANDLER).\n")
    assert errors == (
        "note: plugin 'ping' of ping 1.0 may register handlers and guards when the server starts, which are not shown; "
        "see them with --setup\n"
    )
    status, output, errors = explained(site, '{"ping": 1}', "--setup")
    assert status == 0
    assert output.startswith("set up\nshut down\n")
    assert output.endswith("The packet would reach ping.\n")
    assert "note" not in errors
    status, output, errors = explained(site, '{"other": 1}', OWN="1")
    assert (status, output.splitlines()[-1]) == (0, "The packet would reach other.")
    assert "note: plugin 'ping' of ping 1.0 and the server's setup() may register" in errors
    status, output, _ = explained(site, '{"other": 1}', "--setup", OWN="1")
    assert (status, output.splitlines()[-1]) == (1, "A guard refuses it: no handler would run (ERR_NO_HANDLER).")


def test_explain_has_no_note_where_nothing_is_set_up(site: Site) -> None:
    (site.folder / "program.py").write_text(PROGRAM)
    assert explained(site, '{"other": 1}')[::2] == (0, "")
    assert explained(site, '{"none": 1}')[1].endswith("No handler would run (ERR_NO_HANDLER).\n")


def test_explain_reports_a_setup_that_fails(site: Site) -> None:
    setup = "@hookimpl\ndef asyncapy_setup():\n    raise PluginError('a slip')"
    site.install("ping", f"from asyncapy_core.errors import PluginError\n{setup}")
    (site.folder / "program.py").write_text(PROGRAM)
    status, _, errors = explained(site, '{"other": 1}', "--setup")
    assert (status, errors) == (1, "asyncapy: plugin 'ping' of ping 1.0 failed in setup: PluginError: a slip\n")
