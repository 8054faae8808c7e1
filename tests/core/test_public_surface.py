from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asyncapy
import asyncapy.client
import asyncapy.core
import asyncapy.errors
import asyncapy.filters
import asyncapy.server
import asyncapy.util
import asyncapy_core
import asyncapy_core.plugins
import asyncapy_filters
from asyncapy_core.plugins import hookspecs

HOOKS = [name for name in vars(hookspecs) if name.startswith("asyncapy_")]

SURFACE: dict[str, set[str]] = {
    "asyncapy": {"Client", "Failure", "Packet", "Router", "Server", "__version__"},
    "asyncapy.client": {"AsyncClient", "Client", "EventStream", "Pool", "ReplyStream"},
    "asyncapy.core": {"Client", "Handler", "Packet", "Session", "SharedPacket"},
    "asyncapy.errors": {
        "AlreadyAnswered",
        "AsyncAPYError",
        "BindError",
        "BrokenCodec",
        "ClientDisconnected",
        "CodecError",
        "ConfigError",
        "ConnectionLost",
        "DecodeError",
        "EncodeError",
        "ErrorCode",
        "Failure",
        "FailureReply",
        "Forbidden",
        "HandlerFailed",
        "HeaderRefused",
        "InvalidFields",
        "InvalidHeader",
        "InvalidReply",
        "KeyStoreError",
        "KeyStoreUnavailable",
        "MalformedPacket",
        "NoHandlerFound",
        "NoReply",
        "NotConnected",
        "PacketTooLarge",
        "PluginCollision",
        "PluginError",
        "ProtocolError",
        "RateLimited",
        "RemoteError",
        "ReplyTimeout",
        "RequestMalformed",
        "RequestTooLarge",
        "ServerBusy",
        "ServerDisconnected",
        "SessionLimitReached",
        "SessionTimedOut",
        "StopPropagation",
        "StreamOverflow",
        "Unauthorized",
        "Unavailable",
        "UnexpectedEnd",
        "UnknownCodec",
        "UnknownFilter",
        "UnknownKeyStore",
        "VersionTooOld",
    },
    "asyncapy.filters": {"Filter", "Filters", "Prefix"},
    "asyncapy.server": {"Registration", "Router", "Server"},
    "asyncapy.typed": {"Binary", "Depends", "FromContext", "Request", "StreamRequest", "invalid"},
    "asyncapy.util": {"APIKeyFactory", "KeyRecord"},
    "asyncapy_core": {
        "APIKeyFactory",
        "BatchKeyStore",
        "Client",
        "Codec",
        "Durations",
        "Failure",
        "Filter",
        "Filters",
        "Handler",
        "HandlerStatistics",
        "KeyRecord",
        "KeyStore",
        "MemoryKeyStore",
        "Packet",
        "PluginManager",
        "Prefix",
        "Registration",
        "Router",
        "Server",
        "ServerConfig",
        "ServerStatistics",
        "Session",
        "SharedPacket",
        "Transport",
        "WatchableKeyStore",
        "Woken",
        "__version__",
        "client",
        "errors",
        "hookimpl",
        "hookspec",
    },
    "asyncapy_core.plugins": {
        "BoundHook",
        "PluginManager",
        "PluginRecord",
        "Restriction",
        "ServerHooks",
        "default_manager",
        "hookimpl",
        "hookspec",
    },
    "asyncapy_core.client": {
        "AsyncClient",
        "Client",
        "EventStream",
        "Pool",
        "ReplyStream",
        "TypedRequest",
        "TypedStream",
        "TypedStreamRequest",
    },
    "asyncapy_core.storage": {
        "Finding",
        "ForkAware",
        "Recall",
        "RecordCache",
        "check_timeout",
        "checked_record",
        "metadata_text",
        "skip_damaged",
        "take_seconds",
        "watch_forks",
    },
    "asyncapy_core.testing": {
        "CodecContract",
        "Detached",
        "FilterContract",
        "KeyStoreContract",
        "Sample",
        "ServerInMemory",
        "serving",
    },
    "asyncapy_codecs": {"JsonCodec", "ZiProtoCodec"},
    "asyncapy_filters": {"APIFactory", "Fields", "HasFields", "Ip"},
    "asyncapy_limits": {"Rate"},
}


@pytest.mark.parametrize("module", SURFACE)
def test_a_package_exports_what_is_public_and_nothing_else(module: str) -> None:
    imported = importlib.import_module(module)
    assert set(imported.__all__) == SURFACE[module]
    assert len(imported.__all__) == len(set(imported.__all__))
    for name in imported.__all__:
        assert hasattr(imported, name), name


def test_every_module_that_core_calls_public_is_there() -> None:
    assert asyncapy_core.__doc__ is not None
    named = re.findall(r"`(asyncapy_core\.[a-z]+)`", asyncapy_core.__doc__)
    assert named
    for module in named:
        importlib.import_module(module)


def test_the_documented_names_are_the_objects_of_core() -> None:
    assert asyncapy.Server is asyncapy.server.Server is asyncapy_core.Server
    assert asyncapy.Client is asyncapy.core.Client
    assert asyncapy.Packet is asyncapy.core.Packet
    assert asyncapy.client.Client is asyncapy_core.client.Client
    assert asyncapy.core.Client is asyncapy_core.Client
    assert asyncapy.core.Handler is asyncapy_core.Handler
    assert asyncapy.core.Packet is asyncapy_core.Packet
    assert asyncapy.core.Session is asyncapy_core.Session
    assert asyncapy.filters.Filter is asyncapy_core.Filter
    assert asyncapy.filters.Filters is asyncapy_core.Filters
    assert asyncapy.util.APIKeyFactory is asyncapy_core.APIKeyFactory


def test_the_umbrella_has_the_version_of_core() -> None:
    assert asyncapy.__version__ == asyncapy_core.__version__


def signature(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Return the parameters that can be positional, with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return [(each.name, each.default) for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]


REQUIRED = inspect.Parameter.empty


@pytest.mark.parametrize(
    ("function", "documented"),
    [
        (
            asyncapy.Server,
            [
                ("addr", "127.0.0.1"),
                ("port", 8081),
                ("buf", 1024),
                ("logging_level", 20),
                ("console_format", "[%(levelname)s] %(asctime)s %(message)s"),
                ("datefmt", "%d/%m/%Y %H:%M:%S %p"),
                ("timeout", 60),
                ("header_size", 4),
                ("byteorder", "big"),
                ("config", None),
                ("cfg_parser", None),
                ("session_limit", 0),
            ],
        ),
        (
            asyncapy.client.Client,
            [("byteorder", "big"), ("header_size", 4), ("tls", True), ("encoding", "json"), ("timeout", 60)],
        ),
        (asyncapy.util.APIKeyFactory, [("size", 32)]),
        (asyncapy.Server.run_sync_task, [("self", REQUIRED), ("sync_fn", REQUIRED)]),
        (asyncapy.Server.register_handler, [("self", REQUIRED), ("handler", REQUIRED)]),
        (asyncapy.Server.setup, [("self", REQUIRED)]),
        (asyncapy.Server.shutdown, [("self", REQUIRED)]),
        (asyncapy.Server.start, [("self", REQUIRED)]),
        (asyncapy.client.Client.connect, [("self", REQUIRED), ("hostname", REQUIRED), ("port", REQUIRED)]),
        (asyncapy.client.Client.disconnect, [("self", REQUIRED)]),
        (asyncapy.client.Client.receive, [("self", REQUIRED)]),
        (asyncapy.client.Client.receive_raw, [("self", REQUIRED)]),
        (asyncapy.client.Client.send, [("self", REQUIRED), ("payload", REQUIRED)]),
        (
            asyncapy.core.Client,
            [
                ("address", REQUIRED),
                ("server", REQUIRED),
                ("stream", REQUIRED),
                ("session", None),
                ("encoding", "json"),
            ],
        ),
        (asyncapy.core.Client.send, [("self", REQUIRED), ("packet", REQUIRED), ("close", False)]),
        (asyncapy.core.Handler, [("function", REQUIRED), ("filters", None)]),
        (asyncapy.core.Handler.check, [("self", REQUIRED), ("client", REQUIRED), ("packet", REQUIRED)]),
        (asyncapy.core.Packet, [("fields", REQUIRED), ("encoding", "json"), ("sender", None)]),
        (asyncapy.core.Session, [("session_id", REQUIRED), ("client", REQUIRED), ("date", REQUIRED)]),
        (asyncapy_filters.Ip, [("ips", REQUIRED)]),
        (asyncapy_filters.APIFactory, [("factory", REQUIRED), ("field_name", REQUIRED)]),
        (asyncapy.util.APIKeyFactory.get, [("self", REQUIRED), ("key", REQUIRED)]),
        (asyncapy.util.APIKeyFactory.issue, [("self", REQUIRED), ("metadata", None)]),
        (asyncapy.util.APIKeyFactory.reissue, [("self", REQUIRED), ("key", REQUIRED)]),
        (asyncapy.util.APIKeyFactory.revoke, [("self", REQUIRED), ("key", REQUIRED)]),
        (asyncapy.util.APIKeyFactory.update, [("self", REQUIRED), ("key", REQUIRED), ("metadata", REQUIRED)]),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_parameters_and_defaults_are_those_of_the_documentation(
    function: Callable[..., Any], documented: list[tuple[str, Any]]
) -> None:
    assert signature(function) == documented


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (asyncapy.Server.add_handler, {"group": 0}),
        (asyncapy.Server.register_handler, {"group": 0}),
        (asyncapy.Server.run_sync_task, {"cancellable": False, "limiter": None}),
    ],
)
def test_documented_keywords_have_their_documented_defaults(
    function: Callable[..., Any], names: dict[str, Any]
) -> None:
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in names} == names


def test_the_defaults_of_the_server_and_of_its_settings_agree() -> None:
    for name, default in signature(asyncapy.Server):
        if name not in ("config", "cfg_parser"):
            assert asyncapy_core.ServerConfig.model_fields[name].default == default, name


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_described(hook: str) -> None:
    documentation = inspect.getdoc(getattr(hookspecs, hook))
    assert documentation
    assert documentation.partition("\n")[0].endswith(".")


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test_that_names_it(hook: str) -> None:
    here = Path(__file__).parent
    files = [
        here / "test_plugins.py",
        *here.glob("plugins/test_*.py"),
        *(here.parent / "system").glob("test_*hooks.py"),
    ]
    nodes = [node for file in files for node in ast.parse(file.read_text()).body]
    tests = [each for each in nodes if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert [each.name for each in tests if each.name.startswith(f"test_the_hook_{hook}_")]


def test_there_are_twelve_hooks() -> None:
    assert set(HOOKS) == {
        "asyncapy_adapt",
        "asyncapy_codecs",
        "asyncapy_contracts",
        "asyncapy_drain",
        "asyncapy_filters",
        "asyncapy_hookspecs",
        "asyncapy_key_stores",
        "asyncapy_run",
        "asyncapy_session",
        "asyncapy_setup",
        "asyncapy_shutdown",
        "asyncapy_wrap",
    }


@pytest.mark.parametrize("module", SURFACE)
def test_everything_public_is_described(module: str) -> None:
    imported = importlib.import_module(module)
    assert imported.__doc__
    for name in imported.__all__:
        public = getattr(imported, name)
        if inspect.isclass(public) and public.__module__.startswith("asyncapy"):
            assert public.__doc__, name
            for method, function in vars(public).items():
                if (
                    inspect.isfunction(function)
                    and not method.startswith(("_", "test_"))
                    and not _inherited(public, method)
                ):
                    assert function.__doc__, f"{name}.{method}"


def _inherited(public: type, method: str) -> bool:
    """Return whether a base class or a protocol declares the method; its docstring is there."""
    protocols = (asyncapy_core.KeyStore, asyncapy_core.Codec)
    return any(hasattr(base, method) for base in (*public.__mro__[1:], *protocols))
