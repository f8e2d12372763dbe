"""`make chaos`: at least 150 runs of three effects each, while every part is killed; prints the seed and the counts."""

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.cast import playing
from tests.chaos.checks import wrong_in
from tests.chaos.monkey import Wanted
from tests.chaos.play import DRAINED_WITHIN_S, Scale, keep, play

FULL = Scale(
    conversations=50,
    messages=3,
    wanted=Wanted(worker_kills=15, server_kills=4, database_kills=1, api_kills=4, provider_kills=2, deploys=4),
    rest_s=(0.5, 2.0),
    races=150,
    changed=50,
    forged=50,
)

#: In a run in which everything failed, nothing would be wrong either.
LEAST_EFFECTS, LEAST_SUCCEEDED = 400, 0.85


async def _main(seed: int) -> int:
    folder = Path(tempfile.mkdtemp(prefix="holdfast-chaos-"))
    folder.chmod(0o755)
    print(f"seed {seed}, logs in {folder}", flush=True)
    async with playing(folder, seed) as cast:
        report = await play(cast, FULL, seed)
    wrong = wrong_in(report.facts)
    calls = sum(1 for _ in report.facts.calls("charge", "transfer", "ship", "look"))
    succeeded = sum(call["status"] == "succeeded" for call in report.facts.calls("charge", "transfer", "ship", "look"))
    if report.counts["effects"] < LEAST_EFFECTS or succeeded < LEAST_SUCCEEDED * calls:
        wrong.append(f"too little was done: {report.counts['effects']} effects, {succeeded} of {calls} calls")
    if report.drained_s > DRAINED_WITHIN_S:
        wrong.append(f"it took {report.drained_s:.1f} s until all was done")
    for line in [*report.lines(), *wrong]:
        print(line)
    print(f"{len(wrong)} wrong; facts in {keep(report, folder)}" if wrong else "nothing is wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    sys.exit(asyncio.run(_main(parser.parse_args().seed)))
