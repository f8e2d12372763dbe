"""What was measured, as tables, and beside the targets. A target that is missed is said, and is no failure."""

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks import parked, streams
from benchmarks.desk import PEOPLE
from benchmarks.load import KINDS, LOOKUP, PLAIN, Kind, percentile
from benchmarks.measure import COMPARED_AT, CONVERSATION, Measured, Memory, Report
from benchmarks.notify import Written

_PARTS = ("worker", "API", "Temporal", "PostgreSQL")
_FLOOR_PARTS = ("floor", "PostgreSQL")

#: Memory counts as level when the second half of the messages adds less than this, in MB.
_LEVEL_MB = 10
_ENOUGH_TO_COMPARE = 4

#: What the figures of parked runs are.
_SLOTS = "slots and cache as the worker's own heartbeat says while they wait (the SDK sends one a minute)"
_DECISIONS = "From a decision's HTTP answer to its tool's start, as the tool notes it"


@dataclass(frozen=True)
class Target:
    """A figure and its bound: at most, or at least where `at_least`."""

    name: str
    bound: float
    measured: float
    unit: str = ""
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


def show(report: Report) -> None:
    """Print everything."""
    print(
        f"\nPython {platform.python_version()}, {os.cpu_count()} cores; {report.messages} messages, each answered once;"
    )
    print(f"{report.sent_again} had to be sent again; {_others(report)}")
    _table("One message at a time, ms", _latency_header(), [_latency_row(report, kind) for kind in KINDS])
    _table("Messages a second", _throughput_header(), _throughput_rows(report))
    _table(f"CPU ms a message, {COMPARED_AT} in flight", _cpu_header(), [_cpu_row(report, kind) for kind in KINDS])
    _table("Temporal's history of a message", _history_header(), list(_history_rows(report)))
    _table("Resident memory, MB", ["after messages", "API", "worker"], [_memory_row(at) for at in report.memory])
    _table("Targets", ["", "target", "measured", ""], [_target_row(target) for target in targets(report)])


def show_parked(report: parked.Report) -> None:
    """Print what it takes to wait for people."""
    print(f"\nParked confirmations: {_SLOTS};")
    print(f"approved by {PEOPLE} people at a time, a request each; {_others_of_parked(report)}")
    _table("Runs that wait for a confirmation", _parked_header(), [_parked_row(at) for at in report.parked])
    _table(_DECISIONS, ["", "decisions", "p50 ms", "p95 ms"], list(_decision_rows(report)))


def show_streams(report: streams.Report) -> None:
    """Print how late those who read along are."""
    print(f"\nStreams: {os.cpu_count()} cores; words of a provider that answers at once, ms from there to the reader;")
    print("the first word counted from when the message was sent")
    head = ["at once", "words apart", "first p50", "p95", "word p50", "p95", "API MB"]
    _table("Reading along", [*head, "CPU s worker", "API", "PostgreSQL", "others", "load"], list(streams.rows(report)))
    print(f"\nThe API takes {report.idle_kb:.0f} kB for each of {report.idle} streams in which nothing happens,")
    print(f"and {report.active_kb:.0f} kB for each of {report.loads[-1].streams} in which text is written")
    head = [
        "connections",
        "commits a second",
        "NOTIFY in them",
        "heard p50 ms",
        "p95",
        "after them",
        "heard p50 ms",
        "p95",
    ]
    notified = [
        [str(at.writers), *_written(at.silent), *_written(at.in_it), *_written(at.after_it)] for at in report.notified
    ]
    _table("Writing as fast as it goes", head, notified)


def _written(at: Written) -> list[str]:
    return [f"{at.a_second:.0f}", *(f"{percentile(at.late_ms, percent):.1f}" for percent in (50, 95) if at.late_ms)]


def _others_of_parked(report: parked.Report) -> str:
    shares = [at.others for at in report.parked]
    return f"other programs took {min(shares):.0%} to {max(shares):.0%} of the machine meanwhile"


def _parked_header() -> list[str]:
    memory = ["kB each, worker", "kB each, Temporal"]
    held = ["workflow slots", "activity slots", "local activity slots", "cached runs"]
    return ["runs", "parked in s", *memory, *held, "approved in s", "completed in s"]


def _parked_row(at: parked.Parked) -> list[str]:
    slots = at.slots
    held = [slots.workflow_tasks, slots.activities, slots.local_activities, slots.cached_runs]
    times = [f"{seconds:.1f}" for seconds in (at.approved_s, at.completed_s)]
    memory = [f"{kilobytes:.0f}" for kilobytes in (at.worker_kb, at.temporal_kb)]
    return [str(at.runs), f"{at.parked_s:.1f}", *memory, *(str(number) for number in held), *times]


def _decision_rows(report: parked.Report) -> Iterator[list[str]]:
    yield _decision_row("one run parked", report.alone)
    for at in report.parked:
        yield _decision_row(f"{at.runs} runs parked, {report.plan.a_second:g} decisions a second", at.steady)
    killed = f"kill -9 of the worker, {report.plan.parked[0]} runs parked"
    yield _decision_row(f"{killed}; decided while it is dead, counted from its being ready again", report.decided_dead)
    yield _decision_row(f"{killed}; decided as soon as it is ready again", report.decided_ready)


def _decision_row(name: str, latencies: list[float]) -> list[str]:
    return [name, str(len(latencies)), *(f"{percentile(latencies, percent):.0f}" for percent in (50, 95))]


def targets(report: Report) -> list[Target]:
    """The targets with what was measured."""
    found: list[Target] = []
    for kind in KINDS:
        found.append(Target(f"overhead, {kind.name}", 2.5, _ratio(report, kind, 1, _overhead), "x floor"))
    for in_flight in sorted({number for _, number in report.system} - {1}):
        for kind in KINDS:
            ratio = _ratio(report, kind, in_flight, lambda measured: measured.result.a_second)
            found.append(
                Target(f"messages/s, {kind.name}, {in_flight} in flight", 0.5, ratio, "x floor", at_least=True)
            )
    for kind in KINDS:
        found.append(Target(f"CPU, {kind.name}", 3.0, _ratio(report, kind, COMPARED_AT, _cpu), "x floor"))
    return [*found, *_history_targets(report), *_memory_targets(report)]


def _history_targets(report: Report) -> Iterator[Target]:
    worst = {kind: max(both, key=lambda history: history.events) for kind, both in report.histories.items()}
    yield Target("history, without tools", 16, worst[PLAIN].events, "events")
    yield Target("workflow tasks, without tools", 2, worst[PLAIN].workflow_tasks)
    yield Target("history, one tool", 30, worst[LOOKUP].events, "events")
    for kind, (first, last) in report.histories.items():
        # A few bytes: the turn's number in the conversation may have a digit more.
        yield Target(f"bytes the {CONVERSATION}th message adds, {kind.name}", 16, last.bytes - first.bytes, "bytes")


def _memory_targets(report: Report) -> Iterator[Target]:
    last = report.memory[-1]
    yield Target("memory of the API", 150, last.api_mb, "MB")
    yield Target("memory of the worker", 400, last.worker_mb, "MB")
    steady = [memory for memory in report.memory if memory.is_steady]
    if len(steady) >= _ENOUGH_TO_COMPARE:
        middle = steady[len(steady) // 2]
        since = f"from {middle.messages} to {last.messages} messages"
        yield Target(f"growth of the API {since}", _LEVEL_MB, last.api_mb - middle.api_mb, "MB")
        yield Target(f"growth of the worker {since}", _LEVEL_MB, last.worker_mb - middle.worker_mb, "MB")


def _overhead(measured: Measured) -> float:
    return measured.overhead_ms


def _cpu(measured: Measured) -> float:
    return measured.cpu_ms(*(_FLOOR_PARTS if "floor" in measured.usage.seconds_by_part else _PARTS))


def _ratio(report: Report, kind: Kind, in_flight: int, figure: Callable[[Measured], float]) -> float:
    return figure(report.system[kind, in_flight]) / figure(report.floor[kind, in_flight])


def _others(report: Report) -> str:
    shares = [measured.usage.others for measured in (*report.system.values(), *report.floor.values())]
    return f"other programs took {min(shares):.0%} to {max(shares):.0%} of the machine meanwhile"


def _latency_header() -> list[str]:
    return ["", "p50", "p95", "overhead", "floor p50", "floor p95", "floor overhead", "ratio"]


def _latency_row(report: Report, kind: Kind) -> list[str]:
    system, floor = report.system[kind, 1], report.floor[kind, 1]
    ratio = _ratio(report, kind, 1, _overhead)
    return [kind.name, *_latencies(system), *_latencies(floor), f"{ratio:.2f}"]


def _latencies(measured: Measured) -> list[str]:
    result = measured.result
    return [f"{value:.0f}" for value in (result.percentile(50), result.percentile(95), measured.overhead_ms)]


def _throughput_header() -> list[str]:
    return ["", "in flight", "a second", "p50 ms", "p95 ms", "floor", "floor p50 ms", "floor p95 ms", "ratio"]


def _throughput_rows(report: Report) -> list[list[str]]:
    rows = []
    for (kind, in_flight), system in report.system.items():
        if in_flight == 1:
            continue
        floor = report.floor[kind, in_flight]
        both = [
            cell for measured in (system, floor) for cell in (f"{measured.result.a_second:.1f}", *_spread(measured))
        ]
        ratio = _ratio(report, kind, in_flight, lambda measured: measured.result.a_second)
        rows.append([kind.name, str(in_flight), *both, f"{ratio:.2f}"])
    return rows


def _spread(measured: Measured) -> list[str]:
    return [f"{measured.result.percentile(percent):.0f}" for percent in (50, 95)]


def _cpu_header() -> list[str]:
    beside = ["(provider)", "(load client)"]
    return ["", *_PARTS, "all", *beside, "floor", "its PostgreSQL", "floor, all", "ratio"]


def _cpu_row(report: Report, kind: Kind) -> list[str]:
    system, floor = report.system[kind, COMPARED_AT], report.floor[kind, COMPARED_AT]
    values = [*(system.cpu_ms(part) for part in _PARTS), _cpu(system)]
    values += [system.cpu_ms("provider"), system.cpu_ms("load client")]
    values += [*(floor.cpu_ms(part) for part in _FLOOR_PARTS), _cpu(floor)]
    return [kind.name, *(f"{value:.1f}" for value in values), f"{_ratio(report, kind, COMPARED_AT, _cpu):.2f}"]


def _history_header() -> list[str]:
    return ["", "message", "events", "bytes", "workflow tasks"]


def _history_rows(report: Report) -> Iterator[list[str]]:
    for kind, histories in report.histories.items():
        for which, history in zip(("first", f"{CONVERSATION}th"), histories, strict=True):
            yield [kind.name, which, str(history.events), str(history.bytes), str(history.workflow_tasks)]


def _memory_row(memory: Memory) -> list[str]:
    return [str(memory.messages), f"{memory.api_mb:.0f}", f"{memory.worker_mb:.0f}"]


def _target_row(target: Target) -> list[str]:
    sign = ">=" if target.at_least else "<="
    measured = f"{target.measured:.2f}".rstrip("0").rstrip(".")
    return [target.name, f"{sign} {target.bound:g} {target.unit}", measured, "met" if target.is_met else "NOT MET"]


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    print(f"\n{title}")
    for row in (header, *rows):
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        print(f"  {'  '.join(cells)}".rstrip())
