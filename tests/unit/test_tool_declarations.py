"""What a tool's author declares, and what it means for a call whose outcome is unknown."""

import pytest

from holdfast.domain.tools import DECLARATION_ATTRIBUTE, Declaration, Effect, Idempotency, Terms, terms, tool


@pytest.mark.parametrize(
    ("effect", "idempotency", "expected"),
    [
        (Effect.READ, Idempotency.NATURAL, True),
        (Effect.READ, Idempotency.KEY, True),
        (Effect.READ, Idempotency.NONE, True),
        (Effect.REVERSIBLE, Idempotency.NATURAL, True),
        (Effect.REVERSIBLE, Idempotency.KEY, True),
        (Effect.REVERSIBLE, Idempotency.NONE, False),
        (Effect.IRREVERSIBLE, Idempotency.NATURAL, True),
        (Effect.IRREVERSIBLE, Idempotency.KEY, True),
        (Effect.IRREVERSIBLE, Idempotency.NONE, False),
    ],
)
def test_what_may_run_again(effect: Effect, idempotency: Idempotency, expected: bool) -> None:
    assert Terms(effect, idempotency, 60, 1).is_repeatable is expected


def test_what_says_nothing_counts_as_irreversible_and_never_runs_again() -> None:
    silent = terms(Declaration(), Declaration(), takes_key=False)
    assert silent == Terms(Effect.IRREVERSIBLE, Idempotency.NONE, timeout_s=60, attempts=1)
    assert not silent.is_repeatable


def test_what_takes_a_key_may_run_again_with_the_same() -> None:
    assert terms(Declaration(), Declaration(), takes_key=True).idempotency is Idempotency.KEY


def test_a_policy_gives_no_key_to_what_takes_none() -> None:
    ruled = terms(Declaration(), Declaration(idempotency=Idempotency.KEY), takes_key=False)
    assert not ruled.is_repeatable
    assert ruled.attempts == 1


def test_a_declaration_leaves_the_function_as_it_is() -> None:
    def send() -> str:
        return "sent"

    declared = tool(effect="reversible", idempotency="natural", timeout_s=2)(send)
    assert declared is send
    assert getattr(send, DECLARATION_ATTRIBUTE) == Declaration(Effect.REVERSIBLE, Idempotency.NATURAL, timeout_s=2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"effect": "reads"},
        {"idempotency": "yes"},
        {"timeout_s": 0},
        {"timeout_s": -1},
        {"attempts": 0},
        {"attempts": 11},
        {"confirm": "sometimes"},
    ],
)
def test_a_word_that_means_nothing_is_refused(wrong: dict[str, str | int]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        tool(**wrong)  # type: ignore[arg-type]  # wrong on purpose
