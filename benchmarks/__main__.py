"""`python -m benchmarks`: what a durable message costs, beside a floor where nothing is durable.

Real PostgreSQL and the real Temporal server, one worker and one API, started as `holdfast dev` starts them, in a
temporary folder and on free ports; a scripted provider takes 200 ms for each model call. Then, in systems of their own,
what it takes to read along in streams, and to wait for people. It fails when something is wrong (a message without its
one reply), never because something is slow.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks import measure, parked, report, streams
from benchmarks.load import WrongResult
from holdfast.domain.errors import HoldfastError


def main() -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument(
        "--quick", action="store_true", help="fewer messages and parked runs: some six minutes instead of half an hour"
    )
    parser.add_argument("--parked", action="store_true", help="measure parked confirmations only")
    parser.add_argument("--streams", action="store_true", help="measure streams only")
    parser.add_argument("--messages", type=int, metavar="N", help="measure memory after this many messages")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="write flame graphs there (needs py-spy)")
    options = parser.parse_args()
    plan = measure.QUICK if options.quick else measure.FULL
    plan = replace(plan, total=options.messages or plan.total, profile=options.profile)
    if plan.profile is not None:
        plan.profile.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    only = options.parked or options.streams
    code = _run(
        folder,
        None if only else plan,
        (parked.QUICK if options.quick else parked.FULL) if options.parked or not only else None,
        (streams.QUICK if options.quick else streams.FULL) if options.streams or not only else None,
    )
    if code:
        print(f"the logs are in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return code


def _run(
    folder: Path,
    plan: measure.Plan | None,
    plan_of_parked: parked.Plan | None,
    plan_of_streams: streams.Plan | None,
) -> int:
    code = 0
    try:
        if plan is not None:
            report.show(asyncio.run(measure.measure(folder, plan)))
        if plan_of_streams is not None:
            in_folder = folder / "streams"
            in_folder.mkdir()
            report.show_streams(asyncio.run(streams.measure(in_folder, plan_of_streams)))
        if plan_of_parked is not None:
            report.show_parked(asyncio.run(parked.measure(folder / "parked", plan_of_parked)))
    except* (HoldfastError, WrongResult) as failed:
        for error in failed.exceptions:
            print(f"failed: {error}", file=sys.stderr)
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
