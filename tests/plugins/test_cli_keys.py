"""``asyncapy keys``: some commands in their own processes; each option and error in this process, which is faster."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from ports import free_port
from redis_server import SERVERS, RedisServer, SharedRedis

from asyncapy_cli.main import main
from asyncapy_core import APIKeyFactory

ASYNCAPY = Path(sys.executable).with_name("asyncapy")

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def in_a_process(*arguments: str, stdin: str = "", **environment: str) -> Done:
    """Run ``asyncapy keys`` with these arguments in a process, as a script does."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCAPY_")}
    return subprocess.run(
        [ASYNCAPY, "keys", *arguments],
        input=stdin,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs ``asyncapy keys`` in this process, through ``main``."""
    monkeypatch.delenv("ASYNCAPY_KEY_STORE", raising=False)

    def run(*arguments: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["asyncapy", "keys", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status: Any = 0
        try:
            main()
        except SystemExit as end:
            status = end.code
        except Exception:
            traceback.print_exc()
            status = 1
        return Done(arguments, status or 0, *capfd.readouterr())

    return run


@pytest.fixture(params=["sqlite", *SERVERS])
def store(request: pytest.FixtureRequest, tmp_path: Path, shared_redis: SharedRedis) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'keys.db'}"
    return f"{shared_redis(request.param).url}?prefix={uuid.uuid4()}"


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'keys.db'}"


@pytest.fixture
def factory(store: str) -> Iterator[APIKeyFactory]:
    """A factory of a server that uses the same store."""
    factory = APIKeyFactory(store=store)
    yield factory
    factory.close()


def succeeded(done: Done) -> Done:
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def parsed(done: Done) -> Any:
    return json.loads(succeeded(done).stdout)


def failed(done: Done) -> str:
    """Check that a command failed with one line of error, and return the line."""
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    usage = done.stderr.startswith("Usage: ")  # click writes three lines before an error in the arguments
    lines = done.stderr.splitlines()[3 if usage else 0 :]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(("Error: ", "asyncapy: "))
    return lines[0]


def test_a_script_manages_a_key_from_its_issue_to_its_end(store: str, factory: APIKeyFactory) -> None:
    def keys(*arguments: str, stdin: str = "") -> str:
        return succeeded(in_a_process(arguments[0], "--store", store, *arguments[1:], stdin=stdin)).stdout

    issued = json.loads(keys("issue", "--metadata", '{"owner": "alice"}', "--expires-in", "1h", "--json"))
    assert factory.get(issued["key"]) == {"owner": "alice"}
    known = {name: value for name, value in issued.items() if name != "key"}
    assert json.loads(keys("list", "--json")) == [known]
    assert json.loads(keys("show", "-", "--json", stdin=issued["key"])) == known
    keys("update", issued["id"], "--metadata", '{"owner": "bob"}')
    new = keys("reissue", issued["id"]).strip()
    assert factory.get(new) == {"owner": "bob"}
    keys("revoke", issued["id"])
    assert factory.records() == []


def test_a_key_is_issued_and_printed_on_a_line_of_its_own(keys: Run, store: str, factory: APIKeyFactory) -> None:
    done = succeeded(keys("issue", "--store", store, "--metadata", '{"owner": "alice"}', "--size", "40"))
    key = done.stdout.removesuffix("\n")
    assert len(key) == 40
    assert "\n" not in key
    assert factory.get(key) == {"owner": "alice"}
    assert factory.describe(key).expires is None
    assert factory.describe(key).id in done.stderr
    assert key not in done.stderr


def test_a_key_is_issued_in_json_with_all_that_is_known_of_it(keys: Run, store: str, factory: APIKeyFactory) -> None:
    fields = parsed(keys("issue", "--store", store, "--expires-in", "30d", "--json"))
    record = factory.describe(fields["key"])
    assert fields == {
        "key": fields["key"],
        "id": record.id,
        "metadata": {},
        "issued": record.issued,
        "expires": record.expires,
    }
    assert record.expires == record.issued + 30 * 86400


def test_list_and_show_tell_everything_but_the_key(keys: Run, store: str, factory: APIKeyFactory) -> None:
    issued = [factory.issue_with_record({"owner": name}, expires_in=3600) for name in ("alice", "bob")]
    outputs = [succeeded(keys("list", "--store", store)).stdout]
    for _, record in issued:
        assert record.id in outputs[0]
    assert "alice" in outputs[0]
    listed = succeeded(keys("list", "--store", store, "--json")).stdout
    assert json.loads(listed) == [
        {"id": record.id, "metadata": record.metadata, "issued": record.issued, "expires": record.expires}
        for _, record in issued
    ]
    shown = succeeded(keys("show", "--store", store, issued[0][1].id, "--json")).stdout
    assert json.loads(shown) == json.loads(listed)[0]
    plain = succeeded(keys("show", "--store", store, issued[0][1].id)).stdout
    assert issued[0][1].id in plain
    assert "alice" in plain
    assert "bob" not in plain
    for output in (*outputs, listed, shown, plain):
        assert not [key for key, _ in issued if key in output]


def test_an_empty_store_lists_nothing(keys: Run, sqlite: str) -> None:
    APIKeyFactory(store=sqlite).close()
    assert parsed(keys("list", "--store", sqlite, "--json")) == []
    assert len(succeeded(keys("list", "--store", sqlite)).stdout.splitlines()) <= 1


def test_a_key_is_revoked_by_its_id(keys: Run, store: str, factory: APIKeyFactory) -> None:
    (key, record), other = factory.issue_with_record(), factory.issue()
    assert succeeded(keys("revoke", "--store", store, record.id)).stdout == ""
    with pytest.raises(KeyError):
        factory.get(key)
    assert factory.get(other) == {}


def test_a_key_is_reissued_by_its_id_and_the_new_one_printed(keys: Run, store: str, factory: APIKeyFactory) -> None:
    key, record = factory.issue_with_record({"owner": "alice"}, expires_in=3600)
    done = succeeded(keys("reissue", "--store", store, record.id))
    new = done.stdout.removesuffix("\n")
    assert factory.describe(new) == record
    fields = parsed(keys("reissue", "--store", store, record.id, "--json", "--size", "50"))
    assert len(fields["key"]) == 50
    assert fields["id"] == record.id
    assert factory.describe(fields["key"]) == record
    for old in (key, new):
        with pytest.raises(KeyError):
            factory.get(old)


def test_the_metadata_of_a_key_is_updated(keys: Run, store: str, factory: APIKeyFactory) -> None:
    key, record = factory.issue_with_record({"owner": "alice", "plan": "gold"})
    succeeded(keys("update", "--store", store, record.id, "--metadata", '{"owner": "bob"}'))
    assert factory.get(key) == {"owner": "bob"}


def test_a_dash_reads_the_key_from_standard_input(keys: Run, store: str, factory: APIKeyFactory) -> None:
    key, record = factory.issue_with_record({"owner": "alice"})
    assert parsed(keys("show", "--store", store, "-", "--json", stdin=f"{key}\n"))["id"] == record.id
    succeeded(keys("update", "--store", store, "-", "--metadata", "{}", stdin=f"{key}\n"))
    assert factory.get(key) == {}
    new = succeeded(keys("reissue", "--store", store, "-", stdin=key)).stdout.strip()
    succeeded(keys("revoke", "--store", store, "-", stdin=f"  {new}\n"))
    assert factory.records() == []


def test_expired_keys_are_purged(keys: Run, store: str, factory: APIKeyFactory) -> None:
    stays = factory.issue()
    for _ in range(3):
        factory.issue(expires_in=0.001)
    time.sleep(0.002)
    assert "3 " in succeeded(keys("purge", "--store", store)).stderr
    assert "0 " in succeeded(keys("purge", "--store", store)).stderr
    assert factory.get(stays) == {}


@pytest.mark.parametrize("duration", ["45", "1.5s", "90m", "12h", "30d", "2w"])
def test_a_duration_has_a_unit(keys: Run, sqlite: str, duration: str) -> None:
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}.get(duration[-1], 1)
    fields = parsed(keys("issue", "--store", sqlite, "--json", "--expires-in", duration))
    assert fields["expires"] - fields["issued"] == pytest.approx(float(duration.rstrip("smhdw")) * unit, abs=1e-3)


def test_the_store_may_be_named_by_the_environment(sqlite: str) -> None:
    key = succeeded(in_a_process("issue", ASYNCAPY_KEY_STORE=sqlite)).stdout.strip()
    factory = APIKeyFactory(store=sqlite)
    assert key in factory
    factory.close()


def test_the_environment_of_the_command_line_does_not_disturb_a_server(sqlite: str) -> None:
    program = "from asyncapy import Server; Server(port=0)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"ASYNCAPY_KEY_STORE": sqlite},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("width", ["40", "80"])
def test_ids_are_listed_whole_whatever_stands_beside_them(
    keys: Run, sqlite: str, width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    factory = APIKeyFactory(store=sqlite)
    texts = [
        "x" * 300,
        "word " * 60,
        "[bold]markup[/bold] [link=http://x]",
        "\x1b[2J\x9b2J",
        "\U0001f600" * 50,
        "\u202e",
    ]
    records = [factory.issue_with_record({"note": text}, expires_in=1e9)[1] for text in texts]
    factory.close()
    done = succeeded(keys("list", "--store", sqlite))
    for record in records:
        assert record.id in done.stdout


@pytest.mark.parametrize("command", ["list", "show"])
def test_metadata_does_not_reach_the_terminal_as_commands(keys: Run, sqlite: str, command: str) -> None:
    factory = APIKeyFactory(store=sqlite)
    _, record = factory.issue_with_record({"a": "[bold]", "b": "\x1b[2J", "c": "\x9b2J"})
    factory.close()
    arguments = [record.id] if command == "show" else []
    done = succeeded(keys(command, "--store", sqlite, *arguments))
    assert "[bold]" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\x9b" not in done.stdout


@pytest.mark.parametrize("command", ["list", "show"])
def test_what_is_far_from_usual_can_still_be_listed(keys: Run, sqlite: str, command: str) -> None:
    factory = APIKeyFactory(store=sqlite)
    records = [factory.issue_with_record(expires_in=seconds)[1] for seconds in (1e12, 1e300)]
    records.append(factory.issue_with_record({"owner": "\ud800"})[1])
    factory.close()
    for record in records:
        arguments = [record.id] if command == "show" else []
        for form in ([], ["--json"]):
            assert record.id in succeeded(keys(command, "--store", sqlite, *arguments, *form)).stdout


@pytest.mark.parametrize("command", ["show", "revoke", "reissue", "update"])
def test_an_unknown_id_is_one_line_and_a_failure(keys: Run, store: str, command: str) -> None:
    APIKeyFactory(store=store).close()
    more = ["--metadata", "{}"] if command == "update" else []
    assert "no API key has the id '0123'" in failed(keys(command, "--store", store, "0123", *more))
    assert "no such API key" in failed(keys(command, "--store", store, "-", *more, stdin="x" * 32))
    assert "x" * 32 not in keys(command, "--store", store, "-", *more, stdin="x" * 32).stderr
    assert "no such API key" in failed(keys(command, "--store", store, "-", *more))


@pytest.mark.parametrize("metadata", ["nope", "[]", "1", "null", '"text"', "", '{"a": NaN}', "[" * 100_000])
def test_bad_metadata_is_one_line_and_a_failure(keys: Run, sqlite: str, metadata: str) -> None:
    line = failed(keys("issue", "--store", sqlite, "--metadata", metadata))
    assert "JSON" in line
    assert len(line) < 500


@pytest.mark.parametrize("duration", ["soon", "0", "0d", "-1", "1y", "", "1e9", "nan", "inf", "9" * 400])
def test_a_bad_duration_is_one_line_and_a_failure(keys: Run, sqlite: str, duration: str) -> None:
    assert "expires" in failed(keys("issue", "--store", sqlite, f"--expires-in={duration}")).lower()


@pytest.mark.parametrize("size", ["7", "1025", "many"])
@pytest.mark.parametrize("command", ["issue", "reissue"])
def test_a_bad_size_is_one_line_and_a_failure(keys: Run, sqlite: str, command: str, size: str) -> None:
    more = ["0123"] if command == "reissue" else []
    assert "size" in failed(keys(command, "--store", sqlite, *more, "--size", size))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "store"),
        ("keys.db", "a key store is given as a URL"),
        ("memory://", "keys in memory are lost when this command ends"),
        ("spam://host", "no installed plugin provides key stores for spam://"),
        ("sqlite://keys.db", "names no file"),
        ("sqlite:////nowhere/keys.db", "/nowhere/keys.db does not exist"),
        ("redis://host:port", "is not a Redis URL"),
        ("redis://127.0.0.1:1?spam=1", "spam"),
        ("redis+sentinel://127.0.0.1:1", "SERVICE"),
    ],
)
def test_a_wrong_store_is_one_line_and_a_failure(keys: Run, url: str, message: str) -> None:
    assert message in failed(keys("list", "--store", url))


def test_no_store_is_one_line_and_a_failure(keys: Run) -> None:
    line = failed(keys("list"))
    assert "--store" in line
    assert "ASYNCAPY_KEY_STORE" in line


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
def test_redis_that_is_away_is_one_line_and_a_failure_without_the_password(scheme: str) -> None:
    url = f"{scheme}://:hunter2@127.0.0.1:{free_port()}" + ("/mymaster" if "sentinel" in scheme else "")
    line = failed(in_a_process("list", "--store", url))
    assert "is unavailable" in line
    assert "127.0.0.1" in line
    assert "hunter2" not in line


@pytest.fixture
def lossy_redis(redis_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    """A server that deletes keys when its memory is full, and has no append-only file."""
    settings = ("--appendonly", "no", "--maxmemory-policy", "allkeys-lru", "--maxmemory", "100mb")
    with RedisServer(redis_program, tmp_path, *settings) as server:
        yield server


LOSSES = [
    "maxmemory-policy is allkeys-lru; set noeviction",
    "no append-only file: after a crash, keys that were issued",
]


def test_the_doctor_finds_a_good_store_good(keys: Run, store: str, factory: APIKeyFactory) -> None:
    factory.issue()
    factory.issue(expires_in=0.001)
    time.sleep(0.002)
    done = succeeded(keys("doctor", store))
    assert "PROBLEM" not in done.stdout
    number, expired = (2, 1) if "sqlite" in store else (1, 0)  # Redis has deleted the expired one
    assert f"{number} keys, {expired} of them expired" in done.stdout
    assert ("SQLite 3" if "sqlite" in store else "master, 0 replicas") in done.stdout
    assert done.stderr == ""
    facts = parsed(keys("doctor", store, "--json"))
    assert {fact["problem"] for fact in facts} == {False}


def test_the_doctor_finds_settings_with_which_redis_loses_keys(keys: Run, lossy_redis: RedisServer) -> None:
    done = keys("doctor", lossy_redis.url)
    assert done.returncode == 1
    assert done.stderr == ""
    problems = [line for line in done.stdout.splitlines() if line.startswith("PROBLEM ")]
    assert len(problems) == len(LOSSES)
    for loss, problem in zip(LOSSES, problems, strict=True):
        assert loss in problem
    facts = json.loads(keys("doctor", lossy_redis.url, "--json").stdout)
    assert [fact["problem"] for fact in facts].count(True) == 2


def test_settings_with_which_redis_loses_keys_are_warned_of_once(
    lossy_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    factory = APIKeyFactory(store=lossy_redis.url)
    assert caplog.text == ""
    for _ in range(5):
        assert factory.issue() in factory
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == len(LOSSES)
    for loss, warning in zip(LOSSES, warnings, strict=True):
        assert loss in warning
    factory.close()


def test_a_policy_that_deletes_keys_with_an_expiry_is_warned_of(redis_program: str, tmp_path: Path, keys: Run) -> None:
    with RedisServer(redis_program, tmp_path, "--maxmemory-policy", "volatile-ttl") as server:
        done = keys("doctor", server.url)
    assert "API keys with an expiry are deleted when its memory is full" in done.stdout


def test_a_user_that_may_not_run_info_can_use_keys(keys: Run, own_redis: RedisServer) -> None:
    with redis.Redis(port=own_redis.port) as client:
        client.acl_setuser("limited", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-info"])
    url = f"redis://limited:secret@127.0.0.1:{own_redis.port}/0"
    assert succeeded(keys("issue", "--store", url)).stderr.startswith("Its ID is")
    done = keys("doctor", url)
    assert (done.returncode, done.stderr) == (1, "")
    assert "permission" in done.stdout.lower()
    assert "1 keys, 0 of them expired" in done.stdout


@pytest.mark.parametrize("url", ["sqlite:////nowhere/keys.db", "memory://", "spam://", "redis://host:port"])
def test_the_doctor_of_a_store_that_cannot_be_opened_is_one_line_and_a_failure(keys: Run, url: str) -> None:
    failed(keys("doctor", url))


def test_the_doctor_names_damaged_records(keys: Run, sqlite: str, tmp_path: Path) -> None:
    with closing(APIKeyFactory(store=sqlite)) as factory:
        _, record = factory.issue_with_record()
    with closing(sqlite3.connect(tmp_path / "keys.db")) as connection:
        connection.execute("UPDATE keys SET metadata = '\x1b['")
        connection.commit()
    done = keys("doctor", sqlite)
    assert done.returncode == 1
    assert done.stderr == ""
    (problem,) = [line for line in done.stdout.splitlines() if line.startswith("PROBLEM ")]
    assert f"the record of key '{record.id}' (revoke it by its id) is damaged" in problem


def test_the_doctor_finds_damage_in_a_file_and_a_file_that_everybody_can_write(
    keys: Run, sqlite: str, tmp_path: Path
) -> None:
    path = tmp_path / "keys.db"
    with closing(APIKeyFactory(store=sqlite)) as factory:
        for _ in range(200):
            factory.issue({"text": "x" * 100})
    path.chmod(0o606)
    assert "every user can issue keys; chmod o-w" in keys("doctor", sqlite).stdout
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff" * 3000)
    done = keys("doctor", sqlite)
    assert done.returncode == 1
    assert done.stderr == ""
    assert "PROBLEM" in done.stdout
    assert "the file is damaged" in done.stdout


def test_the_doctor_reports_that_redis_is_away(keys: Run) -> None:
    done = keys("doctor", f"redis://:hunter2@127.0.0.1:{free_port()}")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("PROBLEM redis://127.0.0.1")
    assert "is unavailable" in done.stdout
    assert "hunter2" not in done.stdout


def test_the_doctor_reads_the_url_from_the_environment(sqlite: str) -> None:
    APIKeyFactory(store=sqlite).close()
    assert "0 keys" in succeeded(in_a_process("doctor", ASYNCAPY_KEY_STORE=sqlite)).stdout


@pytest.mark.parametrize("command", ["list", "show", "revoke", "reissue", "update", "purge"])
def test_a_command_that_issues_no_key_makes_no_file(keys: Run, tmp_path: Path, command: str) -> None:
    arguments = {"list": [], "purge": [], "update": ["0123", "--metadata", "{}"]}.get(command, ["0123"])
    line = failed(keys(command, "--store", f"sqlite:///{tmp_path / 'mistyped.db'}", *arguments))
    assert "mistyped.db does not exist; restore it, or correct the path" in line
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_one_line_and_a_failure(keys: Run, tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    path.write_bytes(b"garbage " * 1000)
    assert "the file is damaged or not a database" in failed(keys("list", "--store", f"sqlite:///{path}"))
