"""Programs that open a store and then fork: both processes see each other's changes, and no thread waits forever."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis_server import SERVERS, SharedRedis

from asyncapy_core import APIKeyFactory

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PARENT_CLOSES = """
import os, sys
from asyncapy_core import APIKeyFactory
factory = APIKeyFactory(store=sys.argv[1])
keys = [factory.issue({"number": number}) for number in range(3)]
assert all(key in factory for key in keys)
if os.fork():
    factory.close()
    print(*keys, flush=True)
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
issued = sys.stdin.readline().strip()
print([key in factory for key in (*keys, issued)], factory.issue(), flush=True)
"""
"""The child checks keys after the parent has closed its store and another process has changed it."""

FORKS_WHILE_THREADS_WORK = """
import os, signal, sys, threading, time
from asyncapy_core import APIKeyFactory
factory = APIKeyFactory(store=sys.argv[1])
key = factory.issue()
over = threading.Event()

def use():
    while not over.is_set():
        assert key in factory
        factory.update(key, {"at": time.time()})
        factory.revoke(factory.issue())
        factory.records()

def child():
    signal.alarm(20)
    assert key in factory
    assert factory.issue() in factory
    factory.update(key, {"by": os.getpid()})
    os._exit(0)

threads = [threading.Thread(target=use, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        child()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
over.set()
for thread in threads:
    thread.join()
print(len(factory.records()))
factory.close()
"""

FORKS_WHILE_THREADS_OPEN_FILES = """
import os, signal, sys, threading
from asyncapy_core import APIKeyFactory
factory = APIKeyFactory(store=sys.argv[1])
key = factory.issue()

def use():
    while True:
        APIKeyFactory(store=sys.argv[1]).close()

for _ in range(4):
    threading.Thread(target=use, daemon=True).start()
for number in range(100):
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        os._exit(key not in factory)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, number
print("over", flush=True)
os._exit(0)
"""

FORKS_DURING_A_CHANGE = """
import os, sqlite3, sys, threading
from asyncapy_core import APIKeyFactory
from asyncapy_core.errors import KeyStoreError
factory = APIKeyFactory(store=f"sqlite:///{sys.argv[1]}?timeout=2")
factory.key_store._writer._timeout = 0.1  # the fork waits for less time than the change
key = factory.issue()
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
changing = threading.Thread(target=lambda: factory.update(key, {"changed": True}))
changing.start()
while not factory.key_store._writer._lock.locked():
    pass
pid = os.fork()
if pid == 0:
    try:
        factory.issue()
    except KeyStoreError as error:
        print(error, flush=True)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
other.execute("COMMIT")
changing.join()
print(factory.get(key))
factory.close()
"""

FORKS_WITHOUT_PYTHON = """
import ctypes, os, sys
from asyncapy_core import APIKeyFactory
from asyncapy_core.errors import KeyStoreError
factory = APIKeyFactory(store=sys.argv[1])
key = factory.issue()
pid = ctypes.PyDLL(None).fork()
if pid == 0:
    for call in (factory.issue, lambda: factory.get(key)):
        try:
            call()
        except KeyStoreError as error:
            print(error, flush=True)
    factory.close()
    os._exit(0)
os.waitpid(pid, 0)
print(key in factory, factory.issue() in factory)
factory.close()
"""


@pytest.fixture(params=["sqlite", *SERVERS])
def store(request: pytest.FixtureRequest, tmp_path: Path, shared_redis: SharedRedis) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'keys.db'}?recall_seconds=0"
    return f"{shared_redis(request.param).url}?prefix={uuid.uuid4()}&recall_seconds=0"


def run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_a_child_sees_changes_after_its_parent_has_closed_the_store(store: str) -> None:
    command = [sys.executable, "-c", PARENT_CLOSES, store]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout is not None
        keys = process.stdout.readline().split()
        with closing(APIKeyFactory(store=store)) as factory:  # the only open handle, unless the child has one
            factory.revoke(keys[0])
            issued = factory.issue()
        out, err = process.communicate(f"{issued}\n", timeout=30)
        assert (process.returncode, err) == (0, "")
        seen, of_child = out.rsplit(maxsplit=1)
        assert seen == "[False, True, True, True]"
    with closing(APIKeyFactory(store=store)) as factory:
        assert [key in factory for key in (*keys, issued, of_child)] == [False, True, True, True, True]


def test_a_fork_while_threads_use_a_store_loses_nothing(store: str) -> None:
    assert run(FORKS_WHILE_THREADS_WORK, store) == f"{1 + 10}\n"


def test_a_fork_while_threads_open_files_blocks_no_child(tmp_path: Path) -> None:
    assert run(FORKS_WHILE_THREADS_OPEN_FILES, f"sqlite:///{tmp_path / 'keys.db'}?recall_seconds=0") == "over\n"


def test_a_fork_while_threads_use_a_store_in_memory_blocks_no_child() -> None:
    assert run(FORKS_WHILE_THREADS_WORK, "memory://") == "1\n"


def test_a_child_that_was_forked_during_a_change_gets_an_error(tmp_path: Path) -> None:
    error, changed = run(FORKS_DURING_A_CHANGE, str(tmp_path / "keys.db")).splitlines()
    assert "was forked while it used this file; open the key store after the fork" in error
    assert changed == "{'changed': True}"


def test_a_fork_that_bypasses_python_is_noticed(tmp_path: Path) -> None:
    *errors, passed = run(FORKS_WITHOUT_PYTHON, f"sqlite:///{tmp_path / 'keys.db'}").splitlines()
    assert len(errors) == 2
    assert all("was forked while it used this file" in error for error in errors)
    assert passed == "True True"
