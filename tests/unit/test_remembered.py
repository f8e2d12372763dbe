"""What is remembered of callers, and for how long."""

from holdfast.services.remembered import Remembered


def test_what_was_forgotten_while_it_was_looked_for_is_not_remembered() -> None:
    """A key is looked up, revoked, and then what was found comes: it must not open anything any more."""
    remembered: Remembered[str, str] = Remembered(60, 10)
    mark = remembered.mark
    remembered.forget(lambda _: True)
    remembered.put("key", "ada", mark)
    assert remembered.get("key") is None
    remembered.put("key", "ada", remembered.mark)
    assert remembered.get("key") == "ada"


def test_no_more_than_so_many_are_remembered_and_none_for_longer() -> None:
    remembered: Remembered[int, str] = Remembered(60, 2)
    for number in range(3):
        remembered.put(number, "ada", remembered.mark)
    assert [remembered.get(number) for number in range(3)] == [None, None, "ada"]
    remembered.put(3, "ada", remembered.mark, at_most_s=0)
    assert remembered.get(3) is None
