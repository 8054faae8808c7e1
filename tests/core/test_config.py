from __future__ import annotations

import configparser
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncapy_core import PluginManager, Server, ServerConfig
from asyncapy_core.config import describe_setting
from asyncapy_core.config.loading import load_config
from asyncapy_core.errors import AsyncAPYError, ConfigError


def filled(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read_string(text)
    return parser


def error_text(arguments: dict[str, Any] | None = None, **sources: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(arguments or {}, **{"environ": {}, **sources})
    return str(caught.value)


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    path = tmp_path / "server.ini"
    path.write_text("[AsyncAPY]\naddr = file\nport = 1\nbuf = 1\ntimeout = 1\n")
    return path


def test_the_defaults_are_those_of_the_documentation() -> None:
    config, options = load_config({}, environ={})
    assert config == ServerConfig()
    assert options == {}
    documented = {
        "addr": "127.0.0.1",
        "port": 8081,
        "buf": 1024,
        "logging_level": 20,
        "console_format": "[%(levelname)s] %(asctime)s %(message)s",
        "datefmt": "%d/%m/%Y %H:%M:%S %p",
        "timeout": 60,
        "header_size": 4,
        "byteorder": "big",
        "session_limit": 0,
    }
    assert {name: getattr(config, name) for name in documented} == documented
    assert config.max_packet == 1024 * 1024


def test_arguments_come_before_the_environment_then_the_parser_then_the_file(ini: Path) -> None:
    config, _ = load_config(
        {"addr": "argument"},
        environ={"ASYNCAPY_ADDR": "environment", "ASYNCAPY_PORT": "4"},
        parser=filled("[AsyncAPY]\naddr = parser\nport = 2\nbuf = 2\n"),
        path=ini,
    )
    assert (config.addr, config.port, config.buf, config.timeout) == ("argument", 4, 2, 1.0)


SOURCES = ["arguments", "environ", "parser", "path"]


@given(st.dictionaries(st.sampled_from(SOURCES), st.integers(0, 65535)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_first_source_that_has_a_setting_wins(tmp_path: Path, ports: dict[str, int]) -> None:
    (tmp_path / "server.toml").write_text(
        f"[AsyncAPY]\nport = {ports['path']}" if "path" in ports else "[AsyncAPY]\nbuf = 1024"
    )
    config, _ = load_config(
        {"port": ports["arguments"]} if "arguments" in ports else {},
        environ={"ASYNCAPY_PORT": str(ports["environ"])} if "environ" in ports else {},
        parser=filled(f"[AsyncAPY]\nport = {ports['parser']}") if "parser" in ports else None,
        path=tmp_path / "server.toml",
    )
    assert config.port == next((ports[name] for name in SOURCES if name in ports), 8081)


def test_the_environment_of_the_process_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCAPY_PORT", "4242")
    assert load_config({})[0].port == 4242


def test_other_variables_of_the_environment_are_left_alone() -> None:
    environ = {"ASYNCAPY_REDIS_URL": "redis://", "ASYNCAPY_": "x", "asyncapy_port": "1", "PORT": "2"}
    assert load_config({}, environ=environ)[0] == ServerConfig()


def test_an_argument_that_is_written_wins_even_when_it_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCAPY_PORT", "4242")
    plugins = PluginManager(discover=False)
    assert Server(port=8081, plugins=plugins).config.port == 8081
    assert Server("127.0.0.1", 8081, plugins=plugins).config.port == 8081
    assert Server(plugins=plugins).config.port == 4242
    assert Server(port=None, plugins=plugins).config.port == 4242


def test_further_settings_are_keyword_arguments_of_the_server(ini: Path) -> None:
    server = Server(config=ini, max_packet=100, drain_timeout=0, plugins=PluginManager(discover=False))
    assert (server.config.max_packet, server.config.drain_timeout, server.config.addr) == (100, 0, "file")
    with pytest.raises(ConfigError, match="'max_paket', from the argument max_paket, is not a setting"):
        Server(max_paket=100, plugins=PluginManager(discover=False))  # type: ignore[call-arg]  # the mistake


@pytest.mark.parametrize("name", ["server.ini", "server.cfg", "server.conf", "server"])
def test_an_ini_file_is_read_with_the_formats_of_logging_in_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("[AsyncAPY]\nPort = 1\nconsole_format = %(message)s\ndatefmt = %H:%M\nlogging_level = debug\n")
    config, _ = load_config({}, path=str(path), environ={})
    assert (config.port, config.console_format, config.datefmt) == (1, "%(message)s", "%H:%M")
    assert config.logging_level == 10


@pytest.mark.parametrize("name", ["server.toml", "SERVER.TOML"])
def test_a_toml_file_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(
        '[AsyncAPY]\nport = 1\nlogging_level = "WARNING"\nplugins_require = ["a", "b"]\n'
        '[plugins.codecs]\nengine = "ziproto"\n[plugins.other]\n'
    )
    config, options = load_config({}, path=path, environ={})
    assert (config.port, config.logging_level, config.plugins_require) == (1, 30, ["a", "b"])
    assert options == {"codecs": {"engine": "ziproto"}, "other": {}}


def test_a_parser_with_interpolation_is_taken_as_it_is_written() -> None:
    config, _ = load_config({}, parser=filled("[AsyncAPY]\nconsole_format = %(message)s\n"), environ={})
    assert config.console_format == "%(message)s"


@pytest.mark.parametrize("encoding", ["json", "ziproto"])
def test_the_encoding_in_a_file_of_version_0_5_is_accepted_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, encoding: str
) -> None:
    path = tmp_path / "config.ini"
    path.write_text(f"[AsyncAPY]\naddr = 127.0.0.2\nport = 1500\nencoding = {encoding}\n")
    config, _ = load_config({}, path=path, environ={})
    assert (config.addr, config.port) == ("127.0.0.2", 1500)
    (warning,) = caplog.messages
    assert f"{path}, section [AsyncAPY]: 'encoding' was a setting of version 0.5" in warning


def test_the_encoding_in_a_parser_of_version_0_5_is_accepted_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    config, _ = load_config({}, parser=filled("[AsyncAPY]\nencoding = json\nport = 1500\n"), environ={})
    assert config.port == 1500
    assert len(caplog.messages) == 1


def test_the_encoding_is_no_setting_in_toml_or_of_the_constructor(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[AsyncAPY]\nencoding = "json"\n')
    with pytest.raises(ConfigError, match="'encoding'"):
        load_config({}, path=path, environ={})
    with pytest.raises(ConfigError, match="'encoding'"):
        load_config({"encoding": "json"}, environ={})


def test_plugins_have_sections_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "server.ini"
    path.write_text("[plugin:codecs]\nengine = ziproto\n[plugin:keys]\nurl = 50%\n[unrelated]\na = 1\n")
    config, options = load_config({}, path=path, environ={})
    assert config == ServerConfig()
    assert options == {"codecs": {"engine": "ziproto"}, "keys": {"url": "50%"}}


def test_a_section_of_a_plugin_in_the_parser_comes_before_that_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text("[plugins.a]\nx = 1\n[plugins.b]\nx = 1\n")
    _, options = load_config({}, parser=filled("[plugin:a]\nx = 2\n"), path=path, environ={})
    assert options == {"a": {"x": "2"}, "b": {"x": 1}}


@pytest.mark.parametrize(("suffix", "text"), [("ini", "[AsyncAPY]\n"), ("toml", "[AsyncAPY]\n")])
def test_an_empty_section_leaves_the_defaults(tmp_path: Path, suffix: str, text: str) -> None:
    path = tmp_path / f"server.{suffix}"
    path.write_text(text)
    assert load_config({}, path=path, environ={}) == (ServerConfig(), {})


@pytest.mark.parametrize(
    ("given", "level"), [(10, 10), ("10", 10), ("debug", 10), (" INFO ", 20), ("WARNING", 30), (0, 0), (55, 55)]
)
def test_a_logging_level_is_a_number_or_a_name(given: Any, level: int) -> None:
    assert load_config({"logging_level": given}, environ={})[0].logging_level == level


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a, b ,c", ["a", "b", "c"]),
        ("a", ["a"]),
        ("", []),
        (" , ", []),
        (["x"], ["x"]),
        ("\na\nb\n\n  c-d.e_f", ["a", "b", "c-d.e_f"]),
        ("a,\r\nb,", ["a", "b"]),
    ],
)
def test_names_of_plugins_are_separated_by_commas_or_lines(text: Any, names: list[str]) -> None:
    for setting in ("plugins_allow", "plugins_deny", "plugins_require"):
        assert getattr(load_config({setting: text}, environ={})[0], setting) == names


def test_a_list_in_an_ini_file_has_a_line_for_each_name(tmp_path: Path) -> None:
    path = tmp_path / "a.ini"
    path.write_text(
        "[AsyncAPY]\nplugins_deny =\n    redis\n    # not this\n    sqlite,\n\n    filters\naddr =\n  ::1\n  a\n"
    )
    config, _ = load_config({}, path=path, environ={})
    assert config.plugins_deny == ["redis", "sqlite", "filters"]
    assert config.addresses == ["::1", "a"]


NO_NAMES = ["a b", "'a'", '"a"', '["a"]', "[a]", "a # b", "a ; b", "a;b", "{a}", "a\tb", "a/b", "a:b", "*"]


@pytest.mark.parametrize("text", [*NO_NAMES, *([name] for name in NO_NAMES), ["a, b"], ["a\nb"], [""]])
@pytest.mark.parametrize("setting", ["plugins_allow", "plugins_deny", "plugins_require"])
def test_anything_else_than_names_is_an_error_in_a_list(setting: str, text: Any) -> None:
    assert "is no name of a plugin" in error_text({setting: text})


@pytest.mark.parametrize("text", ["::1 ::2", "'::1'", "[::1]", "::1 # here", "::1; here", '["::1"]', ["::1", "a b"]])
def test_anything_else_than_addresses_is_an_error_in_a_list(text: Any) -> None:
    assert "is no address: write it without" in error_text({"addr": text})
    assert "it has no address" in error_text({"addr": ","})


WRONG: list[tuple[str, Any, str]] = [
    ("addr", "", "host names, IP addresses"),
    ("port", "eighty", "a TCP port, 0 to 65535"),
    ("port", -1, "a TCP port, 0 to 65535"),
    ("port", 65536, "a TCP port, 0 to 65535"),
    ("buf", 0, "the least size of a read"),
    ("logging_level", "loud", "a level of the logging module"),
    ("logging_level", -1, "a level of the logging module"),
    ("console_format", "no field in it", "a %-style logging format"),
    ("console_format", "{message}", "a %-style logging format"),
    ("datefmt", 5, "a date format"),
    ("timeout", 0, "seconds, more than 0"),
    ("timeout", "nan", "seconds, more than 0"),
    ("timeout", float("inf"), "seconds, more than 0"),
    ("timeout", True, "seconds, more than 0"),
    ("send_timeout", -1, "seconds, more than 0"),
    ("drain_timeout", -1, "seconds, 0 or more"),
    ("header_size", 0, "1 to 8"),
    ("header_size", 9, "1 to 8"),
    ("byteorder", "middle", "'big' or 'little'"),
    ("session_limit", -1, "0 sets no limit"),
    ("max_packet", 4, "the largest Content-Length"),
    ("max_connections", 0, "connections at a time"),
    ("max_output", 0, "bytes queued"),
    ("plugins_allow", 5, "names of plugins"),
    ("plugins_deny", [5], "names of plugins"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), WRONG)
def test_a_wrong_argument_names_the_setting_the_source_and_what_is_allowed(name: str, value: Any, allowed: str) -> None:
    text = error_text({name: value})
    assert text.startswith(f"{name} is ")
    assert f"from the argument {name}:" in text
    assert allowed in text.partition("(allowed: ")[2]


@pytest.mark.parametrize("source", ["environ", "parser", "ini", "toml"])
@pytest.mark.parametrize(("name", "value", "allowed"), [row for row in WRONG if isinstance(row[1], (str, int))])
def test_a_wrong_value_from_elsewhere_names_its_source_as_well(
    tmp_path: Path, source: str, name: str, value: Any, allowed: str
) -> None:
    if isinstance(value, bool) or name in ("datefmt", "plugins_allow"):
        value = ""  # these sources contain text only
        if name != "timeout":
            return
    path = tmp_path / f"server.{source}"
    path.write_text(f"[AsyncAPY]\n{name} = {value!r}\n" if source == "toml" else f"[AsyncAPY]\n{name} = {value}\n")
    sources: dict[str, dict[str, Any]] = {
        "environ": {"environ": {f"ASYNCAPY_{name.upper()}": str(value)}},
        "parser": {"parser": filled(f"[AsyncAPY]\n{name} = {value}".replace("%", "%%"))},
        "ini": {"path": path},
        "toml": {"path": path},
    }
    text = error_text(**sources[source])
    origin = {
        "environ": f"from the environment variable ASYNCAPY_{name.upper()}:",
        "parser": "from cfg_parser, section [AsyncAPY]:",
        "ini": f"from {path}, section [AsyncAPY]:",
        "toml": f"from {path}, section [AsyncAPY]:",
    }[source]
    assert text.startswith(f"{name} is ")
    assert origin in text
    assert allowed in text


def test_every_setting_says_what_is_allowed() -> None:
    for name in ServerConfig.model_fields:
        assert " Allowed: " in describe_setting(name), name


def test_every_setting_says_what_its_effect_is_and_not_only_what_is_allowed() -> None:
    for name, field in ServerConfig.model_fields.items():
        assert field.description, name
        meaning, _, allowed = describe_setting(name).partition(". Allowed: ")
        assert len(meaning.split()) >= 5, name
        assert meaning.lower() not in allowed.lower(), name


def test_all_wrong_settings_are_told_at_once_each_with_its_source() -> None:
    text = error_text({"port": -1}, environ={"ASYNCAPY_BUF": "many"}, parser=filled("[AsyncAPY]\ntimeout = 0"))
    assert [line.split()[0] for line in sorted(text.splitlines())] == ["buf", "port", "timeout"]
    assert "argument port" in text
    assert "variable ASYNCAPY_BUF" in text
    assert "cfg_parser" in text


def test_a_setting_that_is_overruled_is_not_complained_of() -> None:
    assert load_config({"port": 1}, environ={"ASYNCAPY_PORT": "wrong"})[0].port == 1


def test_an_unknown_setting_is_an_error_with_what_was_probably_meant(tmp_path: Path) -> None:
    assert error_text({"prot": 1}) == "'prot', from the argument prot, is not a setting; did you mean 'port'?"
    path = tmp_path / "server.ini"
    path.write_text("[AsyncAPY]\nxyzzy = 1\n")
    text = error_text(path=path)
    assert text.startswith(f"'xyzzy', from {path}, section [AsyncAPY], is not a setting; settings: addr, port, ")


@pytest.mark.parametrize("suffix", ["ini", "toml"])
def test_a_path_with_braces_in_it_is_a_path(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "{site}" / f"a{{0}}.{suffix}"
    path.parent.mkdir()
    path.write_text("[AsyncAPY]\nport = 4\n")
    assert load_config({}, path=path, environ={})[0].port == 4
    path.write_text("[AsyncAPY]\nport = -4\n")
    assert f"from {path}, section [AsyncAPY]" in error_text(path=path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert f"cannot read the configuration file {tmp_path / 'none.ini'}: " in error_text(path=tmp_path / "none.ini")
    assert f"cannot read the configuration file {tmp_path}: " in error_text(path=tmp_path)
    (tmp_path / "latin.ini").write_bytes(b"[AsyncAPY]\naddr = \xff\n")
    assert "cannot read the configuration file" in error_text(path=tmp_path / "latin.ini")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.ini", "port = 1", "is not a valid INI file"),
        ("a.ini", "[AsyncAPY]\nport = 1\nport = 2", "is not a valid INI file"),
        ("a.ini", "[asyncapy]\nport = 1", "[asyncapy] is not read; settings go into the section [AsyncAPY]"),
        ("a.ini", "", "into [plugin:NAME]"),
        ("a.toml", "port =", "is not valid TOML"),
        ("a.toml", "port = 1", "port is in no table; write [AsyncAPY] above the settings"),
        ("a.toml", "", "into [plugins.NAME]"),
        ("a.toml", "AsyncAPY = 1", "[AsyncAPY] must be a table; got 1"),
        (
            "a.ini",
            "[AsyncAPY]\n[plugins.codecs]\nengine = a",
            "the options of a plugin go into [plugin:NAME]; got [plug",
        ),
        (
            "a.ini",
            "[AsyncAPY]\n[Plugin:codecs]\nengine = a",
            "the options of a plugin go into [plugin:NAME]; got [Plug",
        ),
        (
            "a.toml",
            "['plugins:codecs']\nengine = 'a'",
            "the options of a plugin go into [plugins.NAME]; got [plugins:co",
        ),
        ("a.toml", "[plugin.codecs]\nengine = 'a'", "the options of a plugin go into [plugins.NAME]; got [plugin]"),
        ("a.toml", "plugins = 1", "[plugins] must hold a table for each plugin"),
        ("a.toml", "[plugins]\na = 1", "[plugins] must hold a table for each plugin"),
    ],
)
def test_a_file_that_is_no_configuration_says_what_it_lacks(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    error = error_text(path=path)
    assert str(path) in error
    assert message in error


@pytest.mark.parametrize("section", ["plugins", "pluginmanager", "plugin_paths", "Other:plugin"])
def test_sections_of_other_programs_do_not_matter(tmp_path: Path, section: str) -> None:
    path = tmp_path / "a.ini"
    path.write_text(f"[AsyncAPY]\nport = 1\n[{section}]\na = 1\n")
    config, options = load_config({}, path=path, environ={})
    assert (config.port, options) == (1, {})


NEAR = ["asyncapy", "ASYNCAPY", "Asyncapy", "AsyncAPI", "AsyncAPy", "AsynAPY", "Async-APY", " AsyncAPY", "AsyncAPY."]


@pytest.mark.parametrize("section", NEAR)
@pytest.mark.parametrize(
    "other", ["[AsyncAPY]\nport = 1\n", "[plugin:codecs]\nengine = ziproto\n", "", "[logging]\na = 1\n"]
)
def test_a_section_that_resembles_that_of_the_settings_is_an_error_beside_any_other(
    tmp_path: Path, section: str, other: str
) -> None:
    text = f"{other}[{section}]\ntls_cert = server.pem\n"
    (tmp_path / "a.ini").write_text(text)
    wanted = f"[{section}] is not read; settings go into the section [AsyncAPY], in these letters"
    assert error_text(path=tmp_path / "a.ini") == f"{tmp_path / 'a.ini'}: {wanted}"
    assert error_text(parser=filled(text)) == f"cfg_parser: {wanted}"


@pytest.mark.parametrize("table", NEAR)
@pytest.mark.parametrize(
    "other", ["[AsyncAPY]\nport = 1\n", "[plugins.codecs]\nengine = 'ziproto'\n", "", "[[log]]\na = 1\n"]
)
def test_a_table_that_resembles_that_of_the_settings_is_an_error_beside_any_other(
    tmp_path: Path, table: str, other: str
) -> None:
    (tmp_path / "a.toml").write_text(f'{other}["{table}"]\ntls_cert = "server.pem"\n')
    text = error_text(path=tmp_path / "a.toml")
    assert text.endswith(f"a.toml: [{table}] is not read; settings go into the table [AsyncAPY], in these letters")


@pytest.mark.parametrize(
    "key", ["tls_cert = 'server.pem'", "plugins_deny = ['redis']", "plugins_deny = []", "title = ''"]
)
def test_a_key_above_the_first_table_is_an_error(tmp_path: Path, key: str) -> None:
    (tmp_path / "a.toml").write_text(f"{key}\n[AsyncAPY]\nport = 1\n")
    assert f"{key.split()[0]} is in no table; write [AsyncAPY] above" in error_text(path=tmp_path / "a.toml")


@pytest.mark.parametrize("table", ["Plugins", "PLUGIN", "plugin"])
def test_a_table_that_resembles_that_of_plugins_is_an_error(tmp_path: Path, table: str) -> None:
    (tmp_path / "a.toml").write_text(f"[AsyncAPY]\nport = 1\n[{table}.codecs]\nengine = 'ziproto'\n")
    assert f"the options of a plugin go into [plugins.NAME]; got [{table}]" in error_text(path=tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.ini", "[AsyncAPY]\nport = 1\n[asyncpg]\na = 1\n[codecs]\nengine = ziproto\n", "sections"),
        ("a.toml", "[AsyncAPY]\nport = 1\n[asyncpg]\na = 1\n[codecs]\nengine = 'ziproto'\n", "tables"),
    ],
)
def test_a_section_of_another_program_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, text: str, kind: str
) -> None:
    (tmp_path / name).write_text(text)
    for _ in range(3):
        assert load_config({}, path=tmp_path / name, environ={})[0].port == 1
    assert caplog.messages == [f"{tmp_path / name}: AsyncAPY does not read the {kind} [asyncpg], [codecs]"]


def test_a_variable_that_resembles_a_setting_is_named(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"ASYNCAPY_TLS_CRT": "x", "asyncapy_tls_key": "y", "ASYNCAPY_KEY_STORE": "z", "ASYNCAPY_NO_SKIPS": "1"}
    assert load_config({}, environ=environ)[0] == ServerConfig()
    assert caplog.messages == [
        "the environment variable ASYNCAPY_TLS_CRT is not read; did you mean ASYNCAPY_TLS_CERT?",
        "the environment variable asyncapy_tls_key is not read; did you mean ASYNCAPY_TLS_KEY?",
    ]


def test_a_key_without_a_value_is_an_error() -> None:
    parser = configparser.ConfigParser(allow_no_value=True)
    parser.read_string("[AsyncAPY]\nplugins_allow\n")
    assert error_text(parser=parser) == (
        "cfg_parser, section [AsyncAPY]: plugins_allow has no value; write plugins_allow = VALUE"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"])
@pytest.mark.parametrize(("name", "quote"), [("a.ini", ""), ("a.toml", '"')])
def test_a_byte_order_mark_is_accepted(tmp_path: Path, encoding: str, name: str, quote: str) -> None:
    text = f"[AsyncAPY]\nport = 1\naddr = {quote}käse{quote}\n"
    coding = encoding.removesuffix("-bom")
    (tmp_path / name).write_bytes((text if coding == encoding else "\ufeff" + text).encode(coding))
    config, _ = load_config({}, path=tmp_path / name, environ={})
    assert (config.port, config.addr) == (1, "käse")


def test_a_parser_without_the_section_is_an_error() -> None:
    assert error_text(parser=filled("[Other]\na = 1")).startswith("cfg_parser has no section [AsyncAPY]")


def test_a_config_error_is_a_value_error_of_ours() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, AsyncAPYError)


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ServerConfig().port = 1  # type: ignore[misc]  # the mistake that is tested


def test_reading_a_file_does_not_import_a_plugin(ini: Path) -> None:
    before = set(sys.modules)
    load_config({}, path=ini, environ={})
    assert not [name for name in set(sys.modules) - before if name.startswith("asyncapy_codecs")]
