"""``asyncapy keys``: issue, list, show, update, reissue, revoke, purge and migrate API keys, and check their store."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn, TypeVar

import click

from asyncapy_cli.output import Unwritten, echo, note, print_json, print_table, printable
from asyncapy_cli.plugins_dir import with_plugins_dir
from asyncapy_core import APIKeyFactory, KeyRecord
from asyncapy_core.errors import AsyncAPYError, KeyStoreError
from asyncapy_core.keys.urls import open_store
from asyncapy_core.storage import Finding, log

F = TypeVar("F", bound=Callable[..., Any])

LONGEST_QUOTE: Final = 100
UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class _Duration(click.ParamType):  # type: ignore[type-arg]  # generic in later releases of click only
    """Seconds, or a number with one of the units s, m, h, d, w."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", str(value).strip())
        if found is None or float(found[1]) == 0:
            self.fail(
                f"{value!r} is not a duration; give seconds, or a number with s, m, h, d or w, such as 30d", param, ctx
            )
        return float(found[1]) * UNITS[found[2]]


class _Metadata(click.ParamType):  # type: ignore[type-arg]  # generic in later releases of click only
    """A JSON object."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        try:
            metadata = json.loads(value)
        except (ValueError, RecursionError) as error:
            self.fail(f"{value[:LONGEST_QUOTE]!r} is not JSON: {error}", param, ctx)
        if not isinstance(metadata, dict):
            self.fail(f'{value[:LONGEST_QUOTE]!r} is not a JSON object, such as {{"owner": "alice"}}', param, ctx)
        return metadata


def _required(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    """Return a value, or raise an error that names the variable, as not every release of click does."""
    if value is None:
        raise click.UsageError("Missing option '--store' (env var: 'ASYNCAPY_KEY_STORE').", context)
    return value


def with_store(function: F) -> F:
    """Add the options ``--store`` and ``--plugins-dir``."""
    option = click.option(
        "--store",
        "url",
        callback=_required,
        envvar="ASYNCAPY_KEY_STORE",
        show_envvar=True,
        help="The key store, such as sqlite:///keys.db or redis://localhost.",
    )
    return option(with_plugins_dir(function))


def with_json(function: F) -> F:
    """Add the option ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(function)


def with_id(function: F) -> F:
    """Add the argument ``ID``."""
    return click.argument("key_id", metavar="ID")(function)


@click.group()
def keys() -> None:
    """Issue, list and revoke API keys.

    A key is identified by its public ID, which `issue` and `list` print. With - as the ID, a command reads the key
    itself from standard input: on the command line it would stay in the shell's history.
    """


@keys.command()
@with_store
@click.option("--metadata", type=_Metadata(), default="{}", help='Metadata of the key: {"owner": "alice"}.')
@click.option("--expires-in", type=_Duration(), help="Lifetime of the key: seconds, or 90m, 12h, 30d.")
@click.option("--size", type=int, default=32, show_default=True, help="The length of the key in characters.")
@with_json
def issue(*, url: str, metadata: dict[str, Any], expires_in: float | None, size: int, as_json: bool) -> None:
    """Issue a key and print it. The store keeps only a digest, so the key cannot be printed again."""
    _require_output()
    with _factory(url, size, create=True) as factory:
        key, record = factory.issue_with_record(metadata, expires_in=expires_in)
        try:
            _print_key(key, record, as_json=as_json)
        except (OSError, KeyboardInterrupt) as error:
            _take_back(factory, record.id, error)
    _tell_id(record.id, as_json=as_json)


@keys.command("list")
@with_store
@with_json
def list_keys(*, url: str, as_json: bool) -> None:
    """List the valid keys, the oldest first."""
    with _factory(url) as factory:
        records = factory.records()
    if as_json:
        print_json([_fields(record) for record in records])
    else:
        print_table(("ID", "Issued", "Expires", "Metadata"), map(_row, records))


@keys.command()
@with_store
@with_id
@with_json
def show(*, url: str, key_id: str, as_json: bool) -> None:
    """Show the record of a key."""
    with _factory(url) as factory:
        record = factory.record(_resolved(factory, key_id))
    if as_json:
        print_json(_fields(record))
        return
    for name, value in _fields(record).items():
        echo(f"{name:9} {_shown(name, value)}")


@keys.command()
@with_store
@with_id
def revoke(*, url: str, key_id: str) -> None:
    """Make a key invalid, immediately and permanently."""
    with _factory(url) as factory:
        factory.revoke_id(_resolved(factory, key_id))
    note("revoked")


@keys.command()
@with_store
@with_id
@click.option("--size", type=int, default=32, show_default=True, help="The length of the new key in characters.")
@with_json
def reissue(*, url: str, key_id: str, size: int, as_json: bool) -> None:
    """Replace a key, keep its ID, and print the new key."""
    _require_output()
    with _factory(url, size) as factory:
        resolved = _resolved(factory, key_id)
        key = factory.reissue_id(resolved)
        try:
            _print_key(key, factory.record(resolved), as_json=as_json)
        except (OSError, KeyboardInterrupt) as error:
            lost = f"the key {resolved} was replaced, and the new key was not printed; reissue it again"
            raise _not_printed(lost, error) from error
    _tell_id(resolved, as_json=as_json)


@keys.command()
@with_store
@with_id
@click.option("--metadata", type=_Metadata(), required=True, help="The new metadata, a JSON object.")
def update(*, url: str, key_id: str, metadata: dict[str, Any]) -> None:
    """Replace the metadata of a key."""
    with _factory(url) as factory:
        factory.update_id(_resolved(factory, key_id), metadata)
    note("updated")


@keys.command()
@with_store
def purge(*, url: str) -> None:
    """Remove the expired keys from the store."""
    with _factory(url) as factory:
        note(f"{factory.purge()} expired keys removed")


@keys.command()
@with_store
def migrate(*, url: str) -> None:
    """Move the keys of an earlier version to the current layout of the store.

    Stop the servers that use the store first. If the command is interrupted, run it again.
    """
    with _factory(url) as factory:
        move = getattr(factory.key_store, "migrate", None)
        note(f"{move() if callable(move) else 0} keys moved")


@keys.command()
@click.argument("url", metavar="[URL]", envvar="ASYNCAPY_KEY_STORE")
@with_json
def doctor(*, url: str, as_json: bool) -> None:
    """Check a key store: its server or file, its settings, and each record. The exit status is 1 if there is a problem.

    Settings are a problem if issued keys can be lost with them, or revoked keys can come back. Without a URL, the store
    is that in ASYNCAPY_KEY_STORE.
    """
    findings: list[Finding] = []
    with _problems_in_log() as problems, _factory(url) as factory:
        for check in (getattr(factory.key_store, "examine", None), functools.partial(_count_keys, factory)):
            try:
                findings.extend(check() if callable(check) else ())
            except KeyStoreError as error:
                findings.append(Finding(str(error), is_problem=True))
    found = {finding.text for finding in findings}
    findings += [Finding(problem, is_problem=True) for problem in dict.fromkeys(problems) if problem not in found]
    if as_json:
        print_json([{"text": finding.text, "problem": finding.is_problem} for finding in findings])
    else:
        for finding in findings:
            echo(printable(f"{'PROBLEM' if finding.is_problem else 'ok':8}{finding.text}"))
    if any(finding.is_problem for finding in findings):
        sys.exit(1)


def _count_keys(factory: APIKeyFactory) -> Iterator[Finding]:
    now, number, expired = time.time(), 0, 0
    for _, record in factory.key_store.records() if factory.key_store else ():
        number += 1
        expired += record.expired(now)
    yield Finding(f"{number} keys, {expired} of them expired")


@contextlib.contextmanager
def _problems_in_log() -> Iterator[list[str]]:
    """Collect the warnings of key stores in a list instead of writing them."""
    problems: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            problems.append(record.getMessage().removeprefix("{Key store} "))

    collector = Collector(logging.WARNING)
    log.addHandler(collector)
    log.propagate = False
    try:
        yield problems
    finally:
        log.removeHandler(collector)
        log.propagate = True


@contextlib.contextmanager
def _factory(url: str, size: int = 32, *, create: bool = False) -> Iterator[APIKeyFactory]:
    """Open a factory for one command; its errors become messages of one line. Only `issue` creates a file."""
    if url.startswith("memory:"):
        raise click.BadParameter(
            "keys in memory are lost when this command ends; give sqlite:///keys.db or redis://localhost"
        )
    try:
        with contextlib.closing(open_store(url, create=create)) as store:
            yield APIKeyFactory(size, store=store)
    except KeyError as error:
        raise click.ClickException(str(error.args[0])) from error
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _resolved(factory: APIKeyFactory, key_id: str) -> str:
    """Return the ID of a key; for ``-``, read the key from standard input."""
    return factory.describe(sys.stdin.readline().strip()).id if key_id == "-" else key_id


def _fields(record: KeyRecord) -> dict[str, Any]:
    return {"id": record.id, "metadata": record.metadata, "issued": record.issued, "expires": record.expires}


def _print_key(key: str, record: KeyRecord, *, as_json: bool) -> None:
    if as_json:
        print_json({"key": key, **_fields(record)})
    else:
        echo(key)


def _tell_id(key_id: str, *, as_json: bool) -> None:
    if not as_json:
        note(f"Its ID is {key_id}. Save the key: it is not shown again.")


def _require_output() -> None:
    """Raise unless there is a standard output: without one, a new key would be lost."""
    if sys.stdout is None:
        raise click.ClickException("standard output is closed, so the key could not be printed; no key was issued")


def _take_back(factory: APIKeyFactory, key_id: str, error: BaseException) -> NoReturn:
    """Revoke a key that could not be printed, and raise an exception that tells so."""
    try:
        factory.revoke_id(key_id)
    except (AsyncAPYError, KeyError) as failure:
        lost = f"the key {key_id} was issued, and not printed. It cannot be revoked ({failure}); revoke it later"
        raise _not_printed(lost, error) from failure
    raise _not_printed(f"the key {key_id} could not be printed, and was revoked again", error) from error


def _not_printed(lost: str, error: BaseException) -> BaseException:
    """Return the exception that ends a command whose key was not printed. A closed pipe keeps its exit status."""
    reason = error.strerror if isinstance(error, OSError) else "it was interrupted"
    if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
        note(f"Error: {lost}: {reason}")
        return error
    return Unwritten(f"{lost}: {reason}")


def _row(record: KeyRecord) -> tuple[str, ...]:
    key_id, metadata, issued, expires = (_shown(name, value) for name, value in _fields(record).items())
    return key_id, issued, expires, metadata


def _shown(name: str, value: Any) -> str:
    """Format a field of a record for a terminal: times as dates, metadata as JSON, control characters escaped."""
    if value is None:
        return "never"
    if name in {"issued", "expires"}:
        try:
            return f"{dt.datetime.fromtimestamp(value).astimezone():%Y-%m-%d %H:%M:%S}"
        except (ValueError, OverflowError, OSError):  # beyond the year 9999
            return f"{value:g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return printable(text.replace("\n", "\\u000a"))
