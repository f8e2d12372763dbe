"""The chaos in short: everything is killed at least once, and nothing is lost, doubled, or between states.

`make chaos` is the long form: 150 runs, 450 effects, 15 kills of workers, 150 races.
"""

import random
from pathlib import Path

import pytest

from tests.chaos.cast import playing
from tests.chaos.checks import wrong_in
from tests.chaos.monkey import Wanted
from tests.chaos.play import Scale, play

SHORT = Scale(
    conversations=5,
    messages=2,
    wanted=Wanted(worker_kills=1, server_kills=1, database_kills=1, api_kills=1, provider_kills=1, deploys=1),
    rest_s=(0.1, 0.5),
    races=2,
    changed=2,
    forged=2,
)


@pytest.mark.timeout(420)
async def test_everything_is_killed_and_nothing_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("TEMPORAL_ADDRESS", "HOLDFAST_CHAOS_RECORDER", "HOLDFAST_CHAOS_PROVIDER"):
        monkeypatch.setenv(variable, "")
    seed = random.SystemRandom().randrange(10**6)
    folder: Path = tmp_path_factory.mktemp("chaos")
    async with playing(folder, seed) as cast:
        report = await play(cast, SHORT, seed)

    assert wrong_in(report.facts) == [], report.lines()
    assert report.counts["effects"] >= 25, report.lines()
    assert report.counts["calls succeeded"] >= 20, report.lines()
