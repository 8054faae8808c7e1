"""The Redis store with real servers: behind Sentinel, on a Cluster and over TLS."""

from __future__ import annotations

import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TypeVar

import pytest
import redis
import trustme
from ports import free_port
from redis_server import RedisServer, Sentinel, cluster_options, is_up
from tcp_proxy import TcpProxy
from tls_proxy import TlsProxy

from asyncapy_core import APIKeyFactory, KeyStore
from asyncapy_core.errors import KeyStoreError, KeyStoreUnavailable
from asyncapy_core.keys.factory import digest
from asyncapy_core.testing import KeyStoreContract
from asyncapy_redis import RedisAPIKeyFactory, RedisKeyStore

T = TypeVar("T")


class Secured:
    """Free ports for TLS, a certificate with its CA, and a CA that did not issue it.

    Redis supports TLS itself. The Valkey of the wheel does not, so it gets a proxy in front of it.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self.has_tls = program == "redis"
        authority, stranger = trustme.CA(), trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        self.right, self.wrong = folder / "right.pem", folder / "wrong.pem"
        authority.cert_pem.write_to_path(str(self.right))
        stranger.cert_pem.write_to_path(str(self.wrong))
        certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(str(folder / "cert.pem"), append=True)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self._files = ["--tls-cert-file", str(folder / "cert.pem"), "--tls-key-file", str(folder / "key.pem")]
        self._files += ["--tls-ca-cert-file", str(self.right), "--tls-auth-clients", "no"]
        self.port, self.cluster_port, self.sentinel_port = free_port(), free_port(), free_port()

    def options(self, port: int, *more: str) -> list[str]:
        """Return the options for TLS on this port and further TLS options; none if the server has no TLS."""
        return ["--tls-port", str(port), *self._files, *more] if self.has_tls else []

    def in_front_of(self, server: RedisServer, port: int) -> AbstractContextManager[object]:
        """Return a context manager that serves TLS on this port, by a proxy if the server has no TLS."""
        return nullcontext() if self.has_tls else TlsProxy(port, server.port, self._context)


@pytest.fixture(scope="module")
def secured(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    secured = Secured(redis_program, tmp_path_factory.mktemp("tls"))
    server = RedisServer(redis_program, tmp_path_factory.mktemp("secured"), *secured.options(secured.port))
    with server, secured.in_front_of(server, secured.port):
        yield secured


@pytest.fixture(scope="module")
def sentinel(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinel]:
    with (
        RedisServer(redis_program, tmp_path_factory.mktemp("master")) as master,
        Sentinel(master, tmp_path_factory.mktemp("sentinel")) as sentinel,
    ):
        yield sentinel


@pytest.fixture(scope="module")
def cluster(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A cluster of one node, which has all hash slots."""
    with RedisServer(redis_program, tmp_path_factory.mktemp("cluster"), *cluster_options()) as node:
        take_all_slots(node)
        yield node


@pytest.fixture
def secured_cluster(secured: Secured, redis_program: str, tmp_path: Path) -> Iterator[None]:
    """A cluster of one node, which clients reach over TLS."""
    announced = ["--tls-cluster", "yes"] if secured.has_tls else ["--cluster-announce-port", str(secured.cluster_port)]
    options = [*cluster_options(), *secured.options(secured.cluster_port), *announced]
    node = RedisServer(redis_program, tmp_path, *options)
    with node, secured.in_front_of(node, secured.cluster_port):
        take_all_slots(node)
        yield


def take_all_slots(node: RedisServer) -> None:
    with redis.Redis(port=node.port) as client:
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
    node.until(is_up)


class TestRedisBehindSentinel(KeyStoreContract):
    stale_seconds = 0.5

    @pytest.fixture(autouse=True)
    def _prefix(self, sentinel: Sentinel) -> None:
        self.url = f"{sentinel.url}?prefix={uuid.uuid4()}"

    def open(self) -> KeyStore:
        assert self.url is not None
        return RedisKeyStore.from_url(self.url)


def within(seconds: float, ask: Callable[[], T]) -> T:
    """Repeat a call until the store is available."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except KeyStoreUnavailable:
            assert time.monotonic() < deadline, f"no recovery within {seconds} s"
            time.sleep(0.05)


def use_all_methods(factory: APIKeyFactory) -> None:
    """Use all methods of the factory on a key."""
    key, record = factory.issue_with_record({"plan": "gold"})
    assert key in factory
    factory.update(key, {"plan": "silver"})
    new = factory.reissue(key)
    assert key not in factory
    assert factory.get(new) == {"plan": "silver"}
    assert record.id in {each.id for each in factory.records()}
    factory.revoke_id(record.id)
    assert new not in factory
    factory.issue(expires_in=0.001)
    time.sleep(0.002)
    assert factory.purge() == 1


@pytest.fixture
def guarded_sentinel(redis_program: str, tmp_path: Path) -> Iterator[Sentinel]:
    """A Sentinel and a master with different passwords, and special characters in them."""
    folders = [tmp_path / name for name in ("master", "sentinel")]
    for folder in folders:
        folder.mkdir()
    with (
        RedisServer(redis_program, folders[0], "--requirepass", "master@/:%") as master,
        Sentinel(master, folders[1], "--requirepass", "sentinel#?&") as sentinel,
    ):
        with redis.Redis(port=sentinel.port, password="sentinel#?&") as client:
            client.sentinel_set("mymaster", "auth-pass", "master@/:%")
        yield sentinel


def test_sentinels_may_require_a_password(guarded_sentinel: Sentinel) -> None:
    url = f"redis+sentinel://:master%40%2F%3A%25@127.0.0.1:{guarded_sentinel.port}/mymaster/0"
    factory = RedisAPIKeyFactory(f"{url}?sentinel_password=sentinel%23%3F%26")
    use_all_methods(factory)
    factory.close()


@pytest.mark.parametrize("password", ["", "?sentinel_password=wrong-guess"])
def test_a_wrong_password_of_a_sentinel_is_a_clear_error_without_it(guarded_sentinel: Sentinel, password: str) -> None:
    url = f"redis+sentinel://:master%40%2F%3A%25@127.0.0.1:{guarded_sentinel.port}/mymaster"
    factory = RedisAPIKeyFactory(url + password)
    with pytest.raises(KeyStoreUnavailable, match="AuthenticationError") as caught:
        factory.issue()
    assert "No master found for 'mymaster'" in str(caught.value)
    message = str(caught.value)
    assert "wrong-guess" not in message
    assert "master@" not in message
    factory.close()


OPTIONS = (
    "socket_timeout=0.9&socket_connect_timeout=0.9&socket_keepalive=yes&health_check_interval=5&max_connections=20"
    "&protocol=2&client_name=keys"
)


@pytest.mark.parametrize("topology", ["server", "sentinel", "cluster"])
def test_options_of_connections_are_numbers_booleans_and_texts(
    topology: str, redis_server: RedisServer, sentinel: Sentinel, cluster: RedisServer
) -> None:
    url = {
        "server": redis_server.url,
        "sentinel": sentinel.url,
        "cluster": f"redis+cluster://127.0.0.1:{cluster.port}",
    }[topology]
    with closing(RedisKeyStore.from_url(f"{url}?prefix={uuid.uuid4()}&{OPTIONS}")) as store:
        use_all_methods(APIKeyFactory(store=store))


def test_a_cluster_is_found_through_any_of_its_nodes(cluster: RedisServer) -> None:
    factory = RedisAPIKeyFactory(f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{cluster.port}", prefix="any")
    use_all_methods(factory)
    factory.close()


def test_when_the_master_dies_its_replica_takes_over(redis_program: str, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("master", "replica", "sentinel")]
    for folder in folders:
        folder.mkdir()
    with RedisServer(redis_program, folders[0], "--repl-diskless-sync-delay", "0") as master:
        follow = ["--replicaof", f"127.0.0.1 {master.port}"]
        with RedisServer(redis_program, folders[1], *follow) as replica:
            replica.until(lambda client: client.info("replication")["master_link_status"] == "up")
            with Sentinel(master, folders[2]) as sentinel:
                sentinel.until(lambda client: len(client.sentinel_slaves("mymaster")) == 1)
                factory = RedisAPIKeyFactory(sentinel.url, recall_seconds=0)
                keys = [factory.issue() for _ in range(20)]
                replica.until(lambda client: client.info("replication")["master_repl_offset"] > 0)
                with redis.Redis(port=master.port) as client:
                    assert client.wait(1, 5000) == 1
                master.kill()
                with pytest.raises(KeyStoreUnavailable):
                    factory.get(keys[0])
                new = within(20, factory.issue)
                assert all(key in factory for key in [*keys, new])
                use_all_methods(factory)
                factory.close()


def test_a_master_that_became_a_replica_does_not_take_changes(redis_program: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with (
        RedisServer(redis_program, tmp_path) as server,
        RedisServer(redis_program, tmp_path / "other") as other,
    ):
        factory = RedisAPIKeyFactory(server.url)
        with redis.Redis(port=server.port) as client:
            client.replicaof("127.0.0.1", other.port)
            with pytest.raises(KeyStoreUnavailable):
                factory.issue()
            client.replicaof("NO", "ONE")
        time.sleep(0.26)  # longer than the pause before the next attempt
        use_all_methods(factory)
        factory.close()


def use_connections(factory: APIKeyFactory, key: str, number: int) -> None:
    """Make the factory open this number of connections, which stay open."""
    barrier = threading.Barrier(number)

    def use(_: int) -> None:
        barrier.wait(10)
        for _ in range(20):
            assert key in factory

    with ThreadPoolExecutor(number) as pool:
        list(pool.map(use, range(number)))


@pytest.fixture
def pair(redis_program: str, tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A master and its replica."""
    folders = [tmp_path / name for name in ("master", "replica")]
    for folder in folders:
        folder.mkdir()
    master = RedisServer(redis_program, folders[0], "--repl-diskless-sync-delay", "0")
    replica = RedisServer(redis_program, folders[1], "--replicaof", f"127.0.0.1 {master.port}")
    with master, replica:
        replica.until(lambda client: client.info("replication")["master_link_status"] == "up")
        yield master, replica


def fail_over(master: RedisServer, replica: RedisServer) -> None:
    """Promote the replica. The old master becomes a replica that keeps its data and gets no changes."""
    with redis.Redis(port=master.port) as old, redis.Redis(port=replica.port) as new:
        assert old.wait(1, 5000) == 1
        new.replicaof("NO", "ONE")
        old.replicaof("127.0.0.1", free_port())


def test_a_master_behind_a_fixed_address_is_left_when_another_takes_over(pair: tuple[RedisServer, RedisServer]) -> None:
    master, replica = pair
    with TcpProxy(master.port) as address:
        factory = RedisAPIKeyFactory(f"redis://127.0.0.1:{address.port}/0", recall_seconds=0)
        revoked, kept = factory.issue(), factory.issue()
        use_connections(factory, revoked, 8)
        fail_over(master, replica)
        address.lead_to(replica.port)
        with closing(RedisAPIKeyFactory(replica.url)) as direct:
            direct.revoke(revoked)
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(factory.__contains__, [revoked] * 50)) == [False] * 50
        assert kept in factory
        use_all_methods(factory)
        factory.close()


def test_the_first_change_after_a_failover_behind_a_fixed_address_succeeds(
    pair: tuple[RedisServer, RedisServer],
) -> None:
    master, replica = pair
    with TcpProxy(master.port) as address:
        factory = RedisAPIKeyFactory(f"redis://127.0.0.1:{address.port}/0")
        use_connections(factory, factory.issue(), 8)
        fail_over(master, replica)
        address.lead_to(replica.port)
        key = factory.issue()
        with closing(RedisAPIKeyFactory(replica.url)) as direct:
            assert key in direct
        factory.close()


def test_notices_of_a_master_that_became_a_replica_keep_no_key(pair: tuple[RedisServer, RedisServer]) -> None:
    master, replica = pair
    with (
        TcpProxy(master.port) as address,
        closing(RedisKeyStore(f"redis://127.0.0.1:{address.port}/0", recall_seconds=0.5)) as store,
    ):
        factory = APIKeyFactory(store=store)
        key = factory.issue()
        assert key in factory
        assert key in factory
        master.until(lambda client: int(client.info("clients")["tracking_clients"]) == 1)
        end = time.monotonic() + 0.5  # a record that was read before the notices began is not kept
        while time.monotonic() < end:
            assert key in factory
        fail_over(master, replica)
        with closing(RedisAPIKeyFactory(replica.url)) as direct:
            direct.revoke(key)
        revoked = time.monotonic()
        while store.peek(digest(key)) is not None:
            assert time.monotonic() < revoked + 0.75, "the old master confirms a key that the new one has not"
        address.lead_to(replica.port)
        assert within(5, lambda: key not in factory)


@pytest.mark.parametrize("way", ["tls", "sentinel"])
def test_notices_come_over_tls_and_from_the_master_behind_sentinel(
    secured: Secured, sentinel: Sentinel, way: str
) -> None:
    url = {"tls": f"rediss://127.0.0.1:{secured.port}/0?ssl_ca_certs={secured.right}", "sentinel": sentinel.url}[way]
    threads = threading.active_count()
    with closing(RedisKeyStore(url, prefix="notices", recall_seconds=30)) as store:
        factory, changes = APIKeyFactory(store=store), list[str | None]()
        store.watch(changes.append)
        with closing(RedisKeyStore(url, prefix="notices")) as other:
            direct = APIKeyFactory(store=other)
            key = factory.issue()
            assert key in factory
            deadline = time.monotonic() + 10
            while digest(key) not in changes:  # until the notices begin
                direct.update(key, {"at": time.time()})
                assert time.monotonic() < deadline
            direct.revoke(key)
            while key in factory:
                assert time.monotonic() < deadline
    assert threading.active_count() == threads


def test_no_key_passes_while_the_address_leads_to_a_replica(pair: tuple[RedisServer, RedisServer]) -> None:
    master, replica = pair
    with closing(RedisAPIKeyFactory(master.url)) as direct:
        key = direct.issue()
    factory = RedisAPIKeyFactory(replica.url, recall_seconds=0)
    calls: list[Callable[[], object]] = [
        lambda: factory.get(key),
        lambda: factory.revoke(key),
        lambda: factory.get("x" * 32),
        factory.issue,
        factory.records,
    ]
    for call in calls:
        with pytest.raises(KeyStoreUnavailable, match=r"is unavailable: .*replica"):
            call()
        time.sleep(0.26)  # longer than the pause before the next attempt
    with redis.Redis(port=replica.port) as client:
        client.replicaof("NO", "ONE")
    assert key in factory
    factory.close()


def test_a_user_that_may_not_run_role_gets_an_error_that_names_it(redis_server: RedisServer) -> None:
    with redis.Redis(port=redis_server.port) as client:
        client.acl_setuser("limited", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-role"])
        try:
            factory = RedisAPIKeyFactory(f"redis://limited:secret@127.0.0.1:{redis_server.port}/0")
            with pytest.raises(KeyStoreError, match="ROLE is refused"):
                factory.issue()
        finally:
            client.acl_deluser("limited")
    factory.close()


def test_a_cluster_that_is_down_is_away_and_comes_back(cluster: RedisServer) -> None:
    factory = RedisAPIKeyFactory(f"redis+cluster://127.0.0.1:{cluster.port}", prefix="down", recall_seconds=0)
    key = factory.issue()
    with redis.Redis(port=cluster.port) as client:
        client.execute_command("CLUSTER DELSLOTSRANGE", 0, 16383)
        cluster.until(lambda client: not is_up(client))
        try:
            for _ in range(2):
                with pytest.raises(KeyStoreUnavailable):
                    factory.get(key)
                time.sleep(0.26)  # longer than the pause before the next attempt
        finally:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            cluster.until(is_up)
    assert within(2, lambda: key in factory)
    factory.close()


def test_a_cluster_that_is_restarted_is_found_again(cluster: RedisServer) -> None:
    factory = RedisAPIKeyFactory(f"redis+cluster://127.0.0.1:{cluster.port}", prefix="again", recall_seconds=0)
    key = factory.issue()
    cluster.stop()
    try:
        for _ in range(2):
            with pytest.raises(KeyStoreUnavailable):
                factory.get(key)
            time.sleep(0.26)  # longer than the pause before the next attempt
    finally:
        cluster.start()
        cluster.until(is_up)
    assert within(2, lambda: key in factory)
    use_all_methods(factory)
    factory.close()


def test_keys_are_managed_over_tls(secured: Secured) -> None:
    factory = RedisAPIKeyFactory(f"rediss://127.0.0.1:{secured.port}/0?ssl_ca_certs={secured.right}")
    use_all_methods(factory)
    factory.close()


@pytest.mark.parametrize("authority", ["wrong", "default"])
def test_a_certificate_of_an_unknown_authority_is_refused(secured: Secured, authority: str) -> None:
    query = f"?ssl_ca_certs={secured.wrong}" if authority == "wrong" else ""
    factory = RedisAPIKeyFactory(f"rediss://127.0.0.1:{secured.port}/0{query}")
    with pytest.raises(KeyStoreError, match="certificate verify failed"):
        factory.issue()
    factory.close()


def test_an_authority_file_that_is_not_there_is_a_clear_error(secured: Secured) -> None:
    factory = RedisAPIKeyFactory(f"rediss://127.0.0.1:{secured.port}/0?ssl_ca_certs=/nowhere/ca.pem")
    with pytest.raises(KeyStoreError, match="No such file"):
        factory.issue()
    factory.close()


def test_what_speaks_no_tls_is_refused(redis_server: RedisServer) -> None:
    factory = RedisAPIKeyFactory(f"rediss://127.0.0.1:{redis_server.port}/0", timeout=0.2)
    with pytest.raises(KeyStoreError, match="is unavailable"):
        factory.issue()
    factory.close()


def test_keys_are_managed_over_tls_on_a_cluster(secured: Secured, secured_cluster: None) -> None:
    url = f"rediss+cluster://127.0.0.1:{secured.cluster_port}?ssl_ca_certs={secured.right}"
    factory = RedisAPIKeyFactory(url, prefix="tls")
    use_all_methods(factory)
    factory.close()


def test_keys_are_managed_over_tls_behind_sentinel(secured: Secured, tmp_path: Path, redis_server: RedisServer) -> None:
    tls = secured.options(secured.sentinel_port, "--tls-replication", "yes")
    sentinel = Sentinel(redis_server, tmp_path, *tls, master_port=secured.port)
    with sentinel, secured.in_front_of(sentinel, secured.sentinel_port):
        factory = RedisAPIKeyFactory(
            f"rediss+sentinel://127.0.0.1:{secured.sentinel_port}/mymaster?ssl_ca_certs={secured.right}"
        )
        use_all_methods(factory)
        factory.close()
