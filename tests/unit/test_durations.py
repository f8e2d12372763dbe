"""Durations as people write them."""

from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from holdfast.domain.agents import Deadline, Duration, parse_duration

UNITS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
durations: TypeAdapter[timedelta] = TypeAdapter(Duration)
deadlines: TypeAdapter[timedelta] = TypeAdapter(Deadline)


@given(st.lists(st.tuples(st.integers(0, 100_000), st.sampled_from(sorted(UNITS))), min_size=1, max_size=6))
def test_the_parts_are_added_up(parts: list[tuple[int, str]]) -> None:
    written = "".join(f"{number}{unit}" for number, unit in parts)
    assert durations.validate_python(written) == sum((number * UNITS[unit] for number, unit in parts), timedelta())


@given(st.timedeltas(timedelta(milliseconds=1), timedelta(days=366)))
def test_what_was_dumped_is_read_again(duration: timedelta) -> None:
    assert deadlines.validate_json(deadlines.dump_json(duration)) == duration


@pytest.mark.parametrize(
    ("written", "expected"),
    [("90s", 90), ("10m", 600), ("24h", 86_400), ("1h30m", 5_400), ("2d", 172_800), ("250ms", 0.25), ("PT5M", 300)],
)
def test_the_forms_that_are_documented(written: str, expected: float) -> None:
    assert durations.validate_python(written) == timedelta(seconds=expected)


@pytest.mark.parametrize("bare", [10, 0, -1, 1.5, True, float("nan"), 10**400])
def test_a_number_has_no_unit(bare: float) -> None:
    with pytest.raises(ValueError, match="has no unit; write it like 90s, 10m, 24h or 1h30m"):
        parse_duration(bare)


@pytest.mark.parametrize("wrong", ["", "10", "m", "10 m", "10m ", "-5m", "1.5h", "10min", "10M", "5m5", "ten minutes"])
def test_what_is_no_duration_is_named(wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^{wrong!r} is not a duration; write it like"):
        parse_duration(wrong)


@pytest.mark.parametrize("endless", ["1000000000d", "9" * 400 + "h", "999999999d" + "24h", "P9999999999D"])
def test_what_is_longer_than_any_duration_is_refused(endless: str) -> None:
    with pytest.raises(ValidationError):
        durations.validate_python(endless)


@given(st.text())
def test_any_text_is_a_duration_or_a_validation_error(text: str) -> None:
    with suppress(ValidationError):
        assert isinstance(durations.validate_python(text), timedelta)


@pytest.mark.parametrize("nothing", ["0s", "0d0h", "PT0S", "-PT5M"])
def test_a_deadline_of_nothing_is_refused(nothing: str) -> None:
    with pytest.raises(ValidationError):
        deadlines.validate_python(nothing)
