"""The application on the time-skipping server: days pass when a test says so."""

import dataclasses
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.testing import WorkflowEnvironment

from holdfast.temporal.converter import DATA_CONVERTER
from holdfast.testing.provider import ScriptedProvider
from tests.harness.servers import Servers
from tests.harness.stage import Stage, playing
from workflows.names import SEARCH_ATTRIBUTES

_SERVER = str(Path(sys.executable).parent / "temporal-test-server")


@pytest.fixture
async def clock() -> AsyncIterator[WorkflowEnvironment]:
    """A time-skipping server; `clock.sleep` lets time pass. One for each test: its time never goes back."""
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=_SERVER, data_converter=DATA_CONVERTER
    ) as environment:
        keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        attributes = dict.fromkeys(SEARCH_ATTRIBUTES, keyword)
        await environment.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace="default", search_attributes=attributes)
        )
        yield environment


@pytest.fixture
async def stage(
    running_servers: Servers, provider: ScriptedProvider, clock: WorkflowEnvironment
) -> AsyncIterator[Stage]:
    """The application, on a server whose time is the test's; PostgreSQL's clock, behind it, goes on as ever."""
    address = clock.client.service_client.config.target_host
    servers = dataclasses.replace(running_servers, temporal_address=address)
    async with playing(servers, provider, f"skipping-{uuid.uuid4().hex[:12]}") as stage:
        yield stage
