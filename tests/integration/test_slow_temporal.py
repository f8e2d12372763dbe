"""Temporal answers, but late: whoever waits is told in time, and what was asked of it is not asked in vain."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from holdfast.domain.errors import Unavailable
from holdfast.domain.ids import new_message_id, new_run_id, workflow_id
from holdfast.domain.runs import RunToStart
from holdfast.temporal.client import MessageWorkflows, connect
from tests.harness.conditions import until
from tests.harness.servers import Servers


@asynccontextmanager
async def _between(address: str, flows: asyncio.Event) -> AsyncIterator[str]:
    """The address of a way to another one, on which nothing moves until `flows` is set."""
    host, port = address.split(":")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while some := await reader.read(65_536):
                await flows.wait()
                writer.write(some)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pass_on(reader, there[1]), pass_on(there[0], writer))

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield "{}:{}".format(*server.sockets[0].getsockname()[:2])


async def test_a_start_that_nobody_waits_for_any_more_is_made_all_the_same(
    running_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    flows = asyncio.Event()
    flows.set()
    run = RunToStart("slow", new_run_id(), "conv_1", new_message_id(), "support")
    direct_address = running_servers.temporal_address
    async with _between(direct_address, flows) as address:
        monkeypatch.setenv("TEMPORAL_ADDRESS", address)
        slow = await connect()
        flows.clear()
        with pytest.raises(Unavailable, match="does not answer"):
            await MessageWorkflows(slow, "nobody works here").start(run)
        flows.set()

        monkeypatch.setenv("TEMPORAL_ADDRESS", direct_address)
        direct = await connect()
        workflow = workflow_id(run.tenant_id, run.agent, run.message_id)
        await until(lambda: MessageWorkflows(direct, "nobody works here").is_open(workflow))
        await direct.get_workflow_handle(workflow).terminate("the test is over")
