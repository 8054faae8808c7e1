"""The plugin ``metrics`` with Prometheus itself: promtool on a real scrape, and a server of Prometheus that scrapes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import trio
from conftest import Serve
from installed import PROMETHEUS, PROMTOOL, needs_prometheus
from installs.pages import blocks
from ports import free_port
from scraping import fetch, labelled, parse, start, with_metrics

from asyncapy_core import Server
from asyncapy_core.errors import Failure
from asyncapy_filters import Fields

DOCS = Path(__file__).parents[2] / "docs"
DEADLINE = 30.0


def measured() -> Server:
    server = with_metrics(measure=True)

    @server.add_handler(Fields(fail=None))
    async def fail(client: Any, packet: Any) -> None:
        raise Failure('ERR_"\\\n')

    @server.add_handler(Fields(echo=None))
    async def echo(client: Any, packet: Any) -> Any:
        return packet

    echo.__name__ = 'größe "\\\n\0\ud800'
    return server


def documented(port: int) -> str:
    """The configuration of the documentation, for another port and with a short interval."""
    (block,) = (block for block in blocks(DOCS / "metrics.md") if block.caption == "prometheus.yml")
    return block.text.replace("9464", str(port)).replace("15s", "100ms")


@contextmanager
def prometheus(folder: Path, config: str) -> Iterator[int]:
    """Run Prometheus, and yield the port of its API."""
    (folder / "prometheus.yml").write_text(config)
    port = free_port()
    assert PROMETHEUS is not None
    command = [PROMETHEUS, f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.path=data"]
    with subprocess.Popen(
        [*command, "--config.file=prometheus.yml"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield port
        finally:
            process.kill()


def ask(port: int, question: str) -> list[dict[str, Any]]:
    """Return the series that an expression selects; none while Prometheus starts."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={quote(question)}", timeout=DEADLINE) as reply:
            found: list[dict[str, Any]] = json.load(reply)["data"]["result"]
            return found
    except URLError:
        return []


@needs_prometheus
async def test_promtool_finds_no_fault_in_a_scrape(serve: Serve) -> None:
    running, port = await start(serve, measured())
    async with await running.connect() as peer:
        for fields in ({"echo": 1}, {"fail": 1}, {"unknown": 1}):
            await peer.ask(**fields)
        _, text = await fetch(port)
    assert len(parse(text)) > 60
    assert PROMTOOL is not None
    done = await trio.run_process(
        [PROMTOOL, "check", "metrics"], stdin=text, capture_stdout=True, capture_stderr=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@needs_prometheus
async def test_the_configuration_of_the_documentation_is_valid(tmp_path: Path) -> None:
    config = tmp_path / "prometheus.yml"
    config.write_text(documented(9464))
    assert PROMTOOL is not None
    done = await trio.run_process([PROMTOOL, "check", "config", str(config)], capture_stdout=True, check=False)
    assert done.returncode == 0, done.stdout


@needs_prometheus
async def test_prometheus_stores_the_values_of_the_server(serve: Serve, tmp_path: Path) -> None:
    running, port = await start(serve, measured())
    async with await running.connect() as peer:
        for fields in ({"echo": 1}, {"echo": 1}, {"fail": 1}):
            await peer.ask(**fields)
        with prometheus(tmp_path, documented(port)) as api, trio.fail_after(DEADLINE):
            while not (found := await trio.to_thread.run_sync(ask, api, "asyncapy_requests_total")):  # noqa: ASYNC110  # the API has no event
                await trio.sleep(0.05)
            durations = await trio.to_thread.run_sync(ask, api, "rpc_server_call_duration_seconds_count")
            up = await trio.to_thread.run_sync(ask, api, "up")
    assert [each["value"][1] for each in up] == ["1"]
    counts = {(each["metric"]["rpc_method"], each["metric"]["rpc_status_code"]): each["value"][1] for each in found}
    name, code = 'größe "\\\\n\\x00\\ud800', 'ERR_"\\\\n'
    assert counts == {("fail", "ok"): "0", ("fail", code): "1", (name, "ok"): "2"}
    assert {each["metric"].get("error_type") for each in durations} == {None, code}


async def test_the_page_names_each_metric_and_no_other(serve: Serve) -> None:
    running, port = await start(serve, measured())
    async with await running.connect() as peer:
        await peer.ask(echo=1)
        _, text = await fetch(port)
    assert labelled("asyncapy_sessions") in parse(text)
    names = set(re.findall(r"^# TYPE (\w+) ", text.decode(), re.MULTILINE))
    listed = set(re.findall(r"`((?:asyncapy|rpc_server)_[a-z_]+)`", (DOCS / "metrics.md").read_text("utf-8")))
    assert {name for name in names if not name.startswith("process_")} == listed - {"asyncapy_run"}  # a hook
