"""``asyncapy plugins test``: runs the contracts of `asyncapy_core.testing` over plugins, without pytest."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Sequence
from typing import Final

import click

from asyncapy_cli.output import echo, note
from asyncapy_core import Codec, KeyStore, PluginManager
from asyncapy_core.foreign.inspection import first_leaf, read_traceback
from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.keys.urls import open_store
from asyncapy_core.logs import reason_of
from asyncapy_core.testing import CodecContract, FilterContract, KeyStoreContract

FRAMES: Final = 3
"""The innermost calls that are shown of a failure."""

STALE_SECONDS: Final = 2.0
"""The longest time for which a store given by URL may return a record that another handle has changed."""


def run_contracts(manager: PluginManager, names: Sequence[str], stores: Sequence[str]) -> bool:
    """Run the contracts over plugins, print the results, and return whether all of them hold.

    Args:
        manager: the plugins.
        names: the plugins to test, all if there are none.
        stores: URLs of empty key stores to test.

    Raises:
        click.ClickException: a name is of no loaded plugin, a store is not empty, or assertions are disabled.
    """
    if not __debug__:
        raise click.ClickException("the contracts consist of assertions; run Python without -O and PYTHONOPTIMIZE")
    manager.require(names)
    for url in stores:
        _check_empty(url)
    untested: list[str] = []
    contracts = [*_contracts(manager, names, stores, untested), *map(_of_store, stores)]
    try:
        held = [_run(title, contract) for title, contract in contracts]
    finally:  # also if the output cannot be written
        for url in stores:
            _empty(url)
    for each in untested:
        note(f"not tested: {each}")
    problems = manager.problems
    for record in problems:
        echo(f"{record.title} is quarantined: {record.reason}")
    return all(held) and not problems


def _contracts(
    manager: PluginManager, names: Sequence[str], stores: Sequence[str], untested: list[str]
) -> Iterator[tuple[str, type]]:
    """Yield the contracts of plugins with titles, and collect the names that no contract tests."""
    records = [record for record in manager.plugins if record.state == "loaded" and (not names or record.name in names)]
    brought = [(record, contract) for record, contract in manager.contracts() if record in records]
    for record, contract in brought:
        yield f"{contract.__name__} of {record.title}", contract
    codecs = [_tested(contract) for _, contract in brought if issubclass(contract, CodecContract)]
    for record, (name, _, codec) in manager.provided_codecs():
        if record in records and type(codec) not in codecs:
            yield f"codec {name!r} of {record.title}", _of_codec(codec)
    filters = [_tested(contract) for _, contract in brought if issubclass(contract, FilterContract)]
    for name in manager.filters:
        owners = manager.filters.owners(name)
        if len(owners) == 1 and owners[0] in records and manager.filters[name] not in filters:
            untested.append(f"filter {name} of {owners[0].title}, which brings no contract for it")
    testing_stores = [record for record, contract in brought if issubclass(contract, KeyStoreContract)]
    for name in manager.key_stores:
        for owner in manager.key_stores.owners(name):
            given = any(url.startswith(f"{name}://") for url in stores)
            if owner in records and owner not in testing_stores and not given:
                untested.append(f"key store {name}:// of {owner.title}; give the URL of an empty one with --store")


def _tested(contract: type) -> type | None:
    """Return the class of the codec or filter that a contract tests."""
    try:
        made = contract()
        return type(made.codec() if issubclass(contract, CodecContract) else made.filter())
    except Exception:  # reported when its tests run
        return None


def _of_codec(codec: Codec) -> type[CodecContract]:
    class Installed(CodecContract):
        lowest_id = 0

        def codec(self) -> Codec:
            return codec

    return Installed


def _of_store(url: str) -> tuple[str, type[KeyStoreContract]]:
    class Given(KeyStoreContract):
        stale_seconds = STALE_SECONDS

        def __init__(self) -> None:
            self.url = url
            _empty(url)

        def open(self) -> KeyStore:
            return open_store(url)

    return f"key store {url.partition('://')[0]}://", Given


def _check_empty(url: str) -> None:
    if url.startswith("memory:"):
        raise click.ClickException("keys in memory belong to one handle; give another store")
    with contextlib.closing(open_store(url)) as store:
        if next(iter(store.records()), None) is not None:
            raise click.ClickException("a store of --store has keys in it, which the tests would remove; give another")


def _empty(url: str) -> None:
    with contextlib.closing(open_store(url)) as store:
        for digest, _ in list(store.records()):
            store.remove(digest)


def _run(title: str, contract: type) -> bool:
    """Run the tests of a contract, each on an object of its own, print the result, and return whether all pass."""
    tests = [name for name in dir(contract) if name.startswith("test_") and callable(getattr(contract, name))]
    failures: dict[str, BaseException] = {}
    for name in tests:
        try:
            getattr(contract(), name)()
        except BaseException as error:  # a plugin may raise anything
            if is_from_signal(error):
                raise
            failures[name] = error
    echo(f"{title}: {len(failures)} of {len(tests)} failed" if failures else f"{title}: {len(tests)} passed")
    for name, failure in failures.items():
        leaf, _ = first_leaf(failure)
        echo(f"    {name}: {reason_of(leaf)}")
        for frame in traceback.extract_tb(read_traceback(leaf))[-FRAMES:]:
            echo(f"        {frame.filename}:{frame.lineno}: {frame.line}")
    return not failures
