"""Whoever waits for a run can be stopped at any moment."""

import asyncio

import pytest

from holdfast.streaming.run_changes import Watch


async def test_whoever_is_stopped_as_something_changes_waits_no_more() -> None:
    """The relay of a process that stops, a request whose client leaves: it is waited for until they have ended."""
    watch = Watch()
    waiting = asyncio.create_task(watch.changed(60))
    await asyncio.sleep(0)
    assert watch.is_waiting
    watch.wake()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not watch.is_waiting
