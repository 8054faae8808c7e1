"""An issued key is a canary: it is in no log line, no repr, no exception and no traceback."""

from __future__ import annotations

import gc
import logging
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from conftest import Serve
from peer import failure, json_packet
from redis_server import SERVERS, RedisServer, SharedRedis
from tcp_proxy import TcpProxy

from asyncapy.filters import Filters
from asyncapy_core import APIKeyFactory, MemoryKeyStore, Server
from asyncapy_core.errors import KeyStoreError
from asyncapy_redis import RedisAPIKeyFactory


class Broken(MemoryKeyStore):
    """A store whose methods fail once ``broken`` is set, with their arguments in the message."""

    broken = False

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name in {"add", "get", "peek", "update", "replace", "remove", "find"} and self.broken:

            def fail(*given: object) -> None:
                raise KeyStoreError(f"cannot {name} {given!r}")

            return fail
        return value


@pytest.fixture(params=["memory", "broken", "sqlite", *SERVERS])
def factory(request: pytest.FixtureRequest, tmp_path: Path, shared_redis: SharedRedis) -> Iterator[APIKeyFactory]:
    match request.param:
        case "memory":
            factory = APIKeyFactory(store="memory://")
        case "broken":
            factory = APIKeyFactory(store=Broken())
        case "sqlite":
            factory = APIKeyFactory(store=f"sqlite:///{tmp_path / 'keys.db'}")
        case program:
            factory = RedisAPIKeyFactory(shared_redis(program).url, prefix=f"{uuid.uuid4()}")
    yield factory
    factory.close()


def texts_of(error: BaseException) -> list[str]:
    """Return all texts of an exception, its cause and its context."""
    texts = [str(error), repr(error), repr(vars(error)), *traceback.format_exception(error)]
    for behind in (error.__cause__, error.__context__):
        texts += texts_of(behind) if behind is not None else []
    return texts


async def test_an_issued_key_is_nowhere_but_in_what_issue_returned(
    factory: APIKeyFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    old, record = factory.issue_with_record({"plan": "gold"})
    texts = [repr(record), repr(factory), str(factory), repr(factory.records()), repr(factory.describe(old))]
    new = await factory.areissue(old)
    canaries = [old, new]
    texts += [repr(vars(factory)), repr(vars(factory._store)), repr(Filters.APIFactory(factory, "key"))]
    wrong: list[Callable[[], Any]] = [
        lambda: factory.get(old),
        lambda: factory.reissue(old),
        lambda: factory.revoke(old),
        lambda: factory.update(old, {}),
        lambda: factory.update(new, {"not": {1, 2}}),
        lambda: factory.update(new, [new]),  # type: ignore[arg-type]  # the mistake that is tested
        lambda: factory.describe([new]),  # type: ignore[arg-type]  # as above
        lambda: factory.issue(expires_in=-1),
        lambda: factory.record("none"),
    ]
    if isinstance(factory._store, Broken):
        factory._store.broken = True
        wrong += [factory.issue, lambda: factory.reissue(new), lambda: factory.revoke(new)]
    failures = 0
    for call in wrong:
        try:
            call()
        except (KeyError, KeyStoreError, TypeError, ValueError) as error:
            failures += 1
            texts += texts_of(error)
    for twin in (factory.aget, factory.areissue, factory.arevoke, lambda key: factory.aupdate(key, {})):
        try:
            await twin(old)
        except (KeyError, KeyStoreError) as error:
            failures += 1
            texts += texts_of(error)
    assert failures >= 12
    texts += [caplog.text, *map(str, caplog.records)]
    assert len("".join(texts)) > 1000
    assert not [text for text in texts for canary in canaries if canary in text]


async def test_a_key_that_a_client_sends_is_in_no_log_line(
    serve: Serve, factory: APIKeyFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = await factory.aissue({"plan": "gold"})
    server = Server(port=0, logging_level=logging.DEBUG)

    @server.add_handler(Filters.APIFactory(factory, "key"))
    async def secret(client: Any, packet: Any) -> None:
        await client.send({"passed": True})

    @server.add_handler(Filters.Fields(revoke=None))
    async def revoke(client: Any, packet: Any) -> None:
        await factory.arevoke(packet.fields["revoke"])
        raise RuntimeError("the handler goes on to fail")

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(key=key) == {"passed": True}
        if isinstance(factory._store, Broken):
            factory._store.broken = True
            assert await peer.ask(key=key) == failure("ERR_NO_HANDLER")
            assert running.logged("KeyStoreError")
        assert await peer.ask(key=[key]) == failure("ERR_NO_HANDLER")
        assert await peer.ask(revoke=key) == failure("ERR_HANDLER_FAILED")
        assert await peer.ask(revoke=key) == failure("ERR_HANDLER_FAILED")
        await peer.send(json_packet(key=key)[:-1] + b"!")
        assert await peer.failure() == "ERR_REQUEST_MALFORMED"
    await running.settle()
    assert len(running.lines) > 10
    assert running.logged("Traceback"), "this server logs tracebacks"
    assert not [line for line in [*running.lines, caplog.text] if key in line]


async def test_a_key_is_in_no_error_when_redis_is_away(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with TcpProxy(redis_server.port) as proxy:
        factory = RedisAPIKeyFactory(f"redis://127.0.0.1:{proxy.port}/0", timeout=0.2, recall_seconds=0)
        key = factory.issue()
        proxy.delay = 1.0
        texts: list[str] = []
        for call in (factory.acontains, factory.areissue):
            for _ in range(2):  # the second fails at once, as Redis did not answer a moment ago
                with pytest.raises(KeyStoreError) as caught:
                    await call(key)
                texts += texts_of(caught.value)
            await trio.sleep(0.3)
        factory.close()
    gc.collect()
    assert len(texts) > 8
    assert not [text for text in [*texts, caplog.text] if key in text]
