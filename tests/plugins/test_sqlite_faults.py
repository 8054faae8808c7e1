"""A full disk, locks, damage, other programs' files, killed processes: clear errors, and no issued key is lost."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from asyncapy_core import APIKeyFactory
from asyncapy_core.errors import KeyStoreError, KeyStoreUnavailable
from asyncapy_core.keys.factory import digest
from asyncapy_sqlite import SQLiteKeyStore

ISSUE_ONE = """
import sys
from asyncapy_core import APIKeyFactory
factory = APIKeyFactory(store=sys.argv[1])
print(factory.issue(), flush=True)
factory.close()
"""

ISSUE_FOR_EVER = """
import sys
from asyncapy_core import APIKeyFactory
factory = APIKeyFactory(store=sys.argv[1])
while True:
    print(factory.issue({"by": "a process that is killed"}), flush=True)
"""

FILL_THE_DISK = """
import resource, signal, sys
from asyncapy_core import APIKeyFactory
from asyncapy_core.errors import KeyStoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
if sys.argv[2] == "from the start":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), hard))
try:
    factory = APIKeyFactory(store=sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), hard))
    for _ in range(100_000):
        print(factory.issue({"note": "x" * 500}), flush=True)
except KeyStoreError as error:
    print(error, file=sys.stderr)
else:
    sys.exit("the disk did not fill")
if sys.argv[2] != "from the start":
    for change in (factory.issue, factory.records()[0].id and factory.purge):
        try:
            change()
        except KeyStoreError:
            pass
    assert len(factory.records()) > 3
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    print(factory.issue({"note": "there is room again"}), flush=True)
    factory.close()
"""

HOLD_A_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.db"


def factory_of(path: Path, options: str = "") -> APIKeyFactory:
    return APIKeyFactory(store=f"sqlite:///{path}{options}")


def run(program: str, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, f"sqlite:///{path}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let another process hold the lock of writers during the block."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_A_LOCK, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            process.communicate(timeout=10)


def damage(path: Path, begin: float, end: float) -> None:
    """Overwrite a part of a file with garbage; begin and end are fractions of its length."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * begin), int(len(data) * end)
    data[first:last] = random.Random(7).randbytes(last - first)
    path.write_bytes(data)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_file_and_what_stands_beside_it_are_readable_by_the_owner_alone(path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with closing(factory_of(path)) as factory:
            factory.issue()
            files = sorted(path.parent.iterdir())
            assert [file.name for file in files] == ["keys.db", "keys.db-shm", "keys.db-wal"]
            assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3
    finally:
        os.umask(before)


def test_a_change_is_on_the_disk_when_it_is_made(path: Path) -> None:
    with closing(SQLiteKeyStore(path)) as store, store._writer.reading() as cursor:
        assert cursor.execute("PRAGMA journal_mode").fetchone() == (b"wal",)
        assert cursor.execute("PRAGMA synchronous").fetchone() == (2,)


def test_the_file_holds_digests_and_no_keys(path: Path) -> None:
    with closing(factory_of(path)) as factory:
        first = factory.issue({"plan": "gold"})
        second = factory.reissue(factory.issue())
        kept = b"".join(file.read_bytes() for file in path.parent.iterdir())
    kept += path.read_bytes()
    for key in (first, second):
        assert digest(key).encode() in kept
        assert key.encode() not in kept


def test_a_full_disk_is_a_clear_error_and_loses_no_key(path: Path) -> None:
    done = run(FILL_THE_DISK, path, "later", str(128 * 1024))
    assert done.returncode == 0, done.stderr
    assert "disk" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    keys = done.stdout.split()
    assert len(keys) > 5
    with closing(factory_of(path)) as factory:
        assert all(key in factory for key in keys)
        assert factory.get(keys[-1]) == {"note": "there is room again"}
        assert factory.issue() in factory


def test_a_disk_that_is_full_from_the_start_is_a_clear_error_and_leaves_a_file_that_can_be_used(path: Path) -> None:
    done = run(FILL_THE_DISK, path, "from the start", "2048")
    assert done.returncode == 0, done.stderr
    assert "disk" in done.stderr
    assert done.stdout == ""
    with closing(factory_of(path)) as factory:
        assert factory.issue() in factory


def test_a_lock_that_another_holds_too_long_is_told_within_the_bound_and_loses_no_key(path: Path) -> None:
    with closing(factory_of(path, "?timeout=0.3")) as factory:
        key, record = factory.issue_with_record({"plan": "gold"})
        with locked(path):
            calls = (
                factory.issue,
                lambda: factory.reissue(key),
                lambda: factory.revoke_id(record.id),
                lambda: factory.update(key, {}),
            )
            for call in calls:
                began = time.monotonic()
                with pytest.raises(KeyStoreUnavailable, match=r"locked by another process for more than 0\.3 s"):
                    call()
                assert time.monotonic() - began >= 0.25
            assert factory.get(key) == {"plan": "gold"}, "a reader does not wait for a writer"
            with closing(factory_of(path)) as newcomer:
                assert key in newcomer
        assert factory.records() == [record]
        assert factory.issue() in factory


async def test_a_lock_that_another_holds_holds_up_no_other_task(path: Path) -> None:
    with closing(factory_of(path, "?timeout=0.5")) as factory:
        key = await factory.aissue()
        with locked(path):
            began = trio.current_time()
            ticks = 0
            async with trio.open_nursery() as nursery:

                async def issue() -> None:
                    with pytest.raises(KeyStoreUnavailable):
                        await factory.aissue()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(issue)
                while True:
                    await trio.sleep(0.01)
                    ticks += 1
            assert trio.current_time() - began >= 0.4
            assert ticks > 2
        assert await factory.acontains(key)


async def test_a_key_is_checked_while_another_task_waits_for_a_lock(path: Path) -> None:
    """If the check waited for the write, the write would fail first, and its exception would end the test."""
    with closing(factory_of(path, "?timeout=5&recall_seconds=0")) as factory:
        key = await factory.aissue()
        with locked(path):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(factory.aissue)
                await trio.sleep(0.1)  # the write waits for the lock then
                assert await factory.acontains(key)
                nursery.cancel_scope.cancel()


def test_a_file_of_garbage_is_a_clear_error_and_is_left_alone(path: Path) -> None:
    garbage = random.Random(7).randbytes(50_000)
    path.write_bytes(garbage)
    with pytest.raises(KeyStoreError, match=r"keys\.db: file is not a database; the file is damaged"):
        factory_of(path)
    assert path.read_bytes() == garbage


@pytest.mark.parametrize(("begin", "end"), [(0.3, 0.6), (0.15, 0.25), (0.9, 1.0)])
def test_damage_in_the_middle_of_a_file_is_a_clear_error_and_the_rest_can_be_read(
    path: Path, begin: float, end: float
) -> None:
    with closing(factory_of(path)) as factory:
        keys = [factory.issue({"note": f"{number:0300}"}) for number in range(300)]
    damage(path, begin, end)
    size = path.stat().st_size
    with closing(factory_of(path)) as factory:
        with pytest.raises(KeyStoreError, match=r"keys\.db: .*the file is damaged"):
            factory.records()
        readable = 0
        for key in keys:
            try:
                readable += key in factory
            except KeyStoreError:
                continue
        assert readable > 0, "the number of readable keys is random, but not 0"
    assert path.stat().st_size >= size


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("metadata", b"{"),
        ("metadata", b""),
        ("metadata", b"\xff"),
        ("metadata", b"[]"),
        ("metadata", b"1"),
        ("metadata", b'{"a": Infinity}'),
        ("metadata", b"[" * 100_000),
        ("issued", b"yesterday"),
        ("issued", b"\xff"),
        ("expires", b"never"),
        ("expires", b"9e999"),
        ("id", b"\xff"),
        ("digest", b"\xff"),
    ],
)
def test_a_damaged_record_is_named_and_the_others_can_be_used(
    path: Path, column: str, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(factory_of(path, "?recall_seconds=0")) as factory:
        key, record = factory.issue_with_record({"plan": "gold"})
        other, kept = factory.issue_with_record({"plan": "gold"})
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"UPDATE keys SET {column} = CAST(? AS TEXT) WHERE digest = ?", (value, digest(key)))
            connection.commit()
        with pytest.raises(KeyError if column == "digest" else KeyStoreError):
            factory.get(key)
        assert factory.get(other) == {"plan": "gold"}
        assert kept in factory.records()
        assert factory.purge() == 0
        if column != "digest":
            shown = r"\\xff" if column == "id" else record.id
            assert f"keys.db: the record of key '{shown}' (revoke it by its id) is damaged" in caplog.text
        if column not in {"digest", "id"}:
            factory.revoke_id(record.id)
            assert factory.records() == [kept]


def test_a_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(KeyStoreError, match="a database of another program; give the key store a file of its own"):
        factory_of(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["keys.db"]


def test_a_file_of_a_later_version_is_refused_and_left_alone(path: Path) -> None:
    with closing(factory_of(path)) as factory:
        factory.issue()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    before = path.read_bytes()
    with pytest.raises(
        KeyStoreError,
        match=r"a later version of asyncapy-sqlite \(schema 2, this one supports 1\); upgrade asyncapy-sqlite",
    ):
        factory_of(path)
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch(0o600)
    with closing(factory_of(path)) as factory:
        assert factory.issue() in factory


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreError, match=r"cannot open .*nowhere/keys\.db: No such file or directory"):
        factory_of(tmp_path / "nowhere" / "keys.db")
    with pytest.raises(KeyStoreError, match=r"(cannot|unable to) open"):
        factory_of(tmp_path)
    (tmp_path / "loop.db").symlink_to("loop.db")
    with pytest.raises(KeyStoreError, match=r"cannot open .*loop\.db: Too many levels of symbolic links"):
        factory_of(tmp_path / "loop.db")


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("://keys.db", "names no file: write sqlite:///keys.db"),
        (":///", "names no file"),
        (":///:memory:", "or use 'memory://'"),
        (":///{}?timeout=soon", "are numbers of seconds"),
        (":///{}?mode=ro", "mode is not an option"),
        (":///{}?timeout=0", "timeout"),
        (":///{}?timeout=-1", "timeout"),
        (":///{}?timeout=nan", "timeout"),
        (":///{}?timeout=inf", "timeout"),
        (":///{}?recall_seconds=-1", "recall"),
        (":///{}?recall_seconds=nan", "recall"),
        (":///{}%00", "null"),
    ],
)
def test_a_wrong_url_is_a_clear_error(path: Path, rest: str, message: str) -> None:
    with pytest.raises(KeyStoreError, match=message):
        APIKeyFactory(store="sqlite" + rest.format(path))


def test_a_url_may_be_relative_and_have_escapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, name in (("sqlite:///my.db", "my.db"), ("sqlite:///a%20b%3F.db?timeout=1", "a b?.db")):
        with closing(APIKeyFactory(store=url)) as factory:
            factory.issue()
        assert (tmp_path / name).is_file()


def test_a_key_outlives_a_process_that_is_killed_right_after_it_was_issued(path: Path) -> None:
    keys = []
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", ISSUE_FOR_EVER, f"sqlite:///{path}"], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            keys += [process.stdout.readline().strip() for _ in range(30)]
            process.send_signal(signal.SIGKILL)
            keys += [line.strip() for line in process.stdout if line.endswith("\n")]
            assert process.wait(10) == -signal.SIGKILL
    assert len(keys) >= 60
    with closing(factory_of(path)) as factory:
        assert all(key in factory for key in keys)
        assert len(factory.records()) >= len(keys)


def test_a_second_handle_in_one_process_costs_no_other_process_its_keys(path: Path) -> None:
    """Closing any descriptor of the file drops the locks that SQLite holds in this process."""
    first = factory_of(path)
    keys = [first.issue()]
    with closing(factory_of(path)):
        for _ in range(2):
            done = run(ISSUE_ONE, path)
            assert done.returncode == 0, done.stderr
            keys += [done.stdout.strip(), first.issue()]
    first.close()
    with closing(factory_of(path)) as factory:
        assert [key in factory for key in keys] == [True] * len(keys)


def test_a_store_that_is_closed_says_so(path: Path) -> None:
    factory = factory_of(path)
    key = factory.issue()
    factory.close()
    with pytest.raises(KeyStoreError, match="closed"):
        factory.get(key)


OPEN_MANY = """
import sys
from asyncapy_sqlite import SQLiteKeyStore
for number in range(100):
    print(number, flush=True)
    sys.stdin.readline()
    SQLiteKeyStore(f"{sys.argv[1]}/{number}.db", timeout=30).close()
"""


def test_processes_that_make_the_same_file_at_the_same_time_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN_MANY, str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for number in range(100):
        said = [process.stdout.readline() for process in processes if process.stdout is not None]
        assert said == [f"{number}\n"] * 3
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
    for process in processes:
        process.communicate(timeout=30)
    assert [process.returncode for process in processes] == [0] * 3


def test_a_file_that_takes_the_place_of_the_file_is_used(path: Path) -> None:
    other = path.with_name("other.db")
    with closing(factory_of(other)) as factory:
        new = factory.issue({"file": "new"})
    with closing(factory_of(path)) as factory:
        old = factory.issue({"file": "old"})
        assert old in factory
        other.rename(path)
        assert factory.get(new) == {"file": "new"}
        assert old not in factory
        factory.update(new, {"file": "changed"})
        issued = factory.issue()
        with closing(factory_of(path)) as direct:
            assert direct.get(new) == {"file": "changed"}
            assert issued in direct
            assert old not in direct
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_file_that_is_moved_away_keeps_its_keys(path: Path) -> None:
    moved, other = path.with_name("moved.db"), path.with_name("other.db")
    factory_of(other).close()
    with closing(factory_of(path)) as factory:
        key = factory.issue()  # it is in the write-ahead log
        path.rename(moved)
        other.rename(path)
        assert key not in factory
    with closing(factory_of(moved)) as factory:
        assert key in factory


def test_a_file_that_was_deleted_lets_no_key_pass_until_it_is_back(path: Path) -> None:
    with closing(factory_of(path)) as factory:
        key = factory.issue()
        path.rename(path.with_name("moved.db"))
        for call in (lambda: factory.get(key), factory.issue, factory.records, factory.purge):
            with pytest.raises(KeyStoreError, match=r"keys\.db does not exist; restore it"):
                call()
        assert [file.name for file in path.parent.iterdir()] == ["moved.db"]
        path.with_name("moved.db").rename(path)
        assert key in factory
        assert factory.issue() in factory
        path.unlink()
        with pytest.raises(KeyStoreError, match="does not exist"):
            factory.issue()
        assert list(path.parent.iterdir()) == []


def test_a_file_is_not_created_in_place_of_one_that_another_process_uses(path: Path) -> None:
    with closing(factory_of(path)) as factory:
        factory.issue()
        path.unlink()
        with pytest.raises(KeyStoreError, match=r"files of a deleted database do; .* delete .*keys\.db-wal and .*-shm"):
            factory_of(path)
        assert not path.exists()


def test_a_key_that_is_issued_while_the_file_is_replaced_is_reported_as_lost(path: Path) -> None:
    other = path.with_name("other.db")
    factory_of(other).close()
    with closing(SQLiteKeyStore(path)) as store:

        def change() -> None:
            with store._writer.changing() as cursor:
                cursor.execute("DELETE FROM keys")
                other.rename(path)

        with pytest.raises(KeyStoreUnavailable, match="was replaced during this change"):
            change()
        assert APIKeyFactory(store=store).issue() in APIKeyFactory(store=store)


def test_a_link_may_lead_to_another_file(path: Path) -> None:
    one, other = path.with_name("one.db"), path.with_name("other.db")
    factory_of(other).close()
    with closing(factory_of(one)):
        path.symlink_to(one)
        with closing(factory_of(path)) as factory:
            key = factory.issue()
            link = path.with_name("link")
            link.symlink_to(other)
            link.rename(path)
            assert key not in factory
            issued = factory.issue()
        with closing(factory_of(one)) as factory:
            assert key in factory
            assert issued not in factory


def test_a_file_that_cannot_be_used_takes_the_place_of_the_file(path: Path) -> None:
    with closing(factory_of(path, "?recall_seconds=0")) as factory:
        key = factory.issue()
        kept = path.with_name("kept.db")
        path.rename(kept)
        path.write_bytes(b"garbage" * 1000)
        for _ in range(2):
            with pytest.raises(KeyStoreError, match="the file is damaged or not a database"):
                factory.get(key)
        kept.rename(path)
        assert key in factory


async def test_keys_are_checked_while_all_are_listed(path: Path) -> None:
    """With one connection, the check would wait until all rows are read."""
    with closing(SQLiteKeyStore(path)) as store:
        factory = APIKeyFactory(store=store)
        key = factory.issue()
        listing = store._open()
        with closing(listing), listing.reading():
            assert await factory.acontains(key)


PATH_CHANGES = """
import os, sys
from asyncapy_core import APIKeyFactory
factory = APIKeyFactory(store="sqlite:///keys.db")
key = factory.issue()
os.chdir("/")
print(key in factory, factory.issue() in factory, len(factory.records()))
"""


def test_a_relative_path_leads_to_the_same_file_after_a_change_of_the_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PATH_CHANGES]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("True True 2\n", "")
