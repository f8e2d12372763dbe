"""Expressions over a call's arguments, as a policy's `when` has them: `amount > 100 and currency == 'USD'`.

They are Python's own, without what can loop, call or reach outside: names are the arguments, `len`, `lower`, `min`,
`max` and `abs` the only functions. Who can't tell whether an expression holds is to ask a person.
"""

import ast
from typing import Any

from simpleeval import DEFAULT_OPERATORS, EvalWithCompoundTypes  # type: ignore[import-untyped]  # it ships no types

_FUNCTIONS = {"len": len, "lower": str.lower, "min": min, "max": max, "abs": abs}

#: The largest exponent. The arguments are a model's: what they take to compute must not stop the worker.
_MAX_EXPONENT = 100


def _power(base: float, exponent: float) -> Any:
    if abs(exponent) > _MAX_EXPONENT:
        raise ValueError("that is too large to compute")
    return base**exponent


def _remainder(value: float, divisor: float) -> float:
    if isinstance(value, str | bytes):
        # `%` would format it, at any length that the text asks for.
        raise TypeError("a text has no remainder")
    return value % divisor


_OPERATORS = {**DEFAULT_OPERATORS, ast.Pow: _power, ast.Mod: _remainder}


def check(expression: str) -> None:
    """Check that an expression can be read.

    Raises:
        ValueError: it can't; the text says why, on one line.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{expression!r} is not an expression: {getattr(error, 'msg', error)}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS):
            raise ValueError(f"{expression!r}: only {', '.join(_FUNCTIONS)} can be called")
        if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Await):
            raise ValueError(f"{expression!r}: {type(node).__name__} is not possible here")


def names_in(expression: str) -> set[str]:
    """The arguments that an expression, which was checked, looks at."""
    tree = ast.parse(expression.strip(), mode="eval")
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - _FUNCTIONS.keys() - {"None"}


def holds(expression: str, arguments: dict[str, Any]) -> bool:
    """Whether an expression holds for these arguments; also where that can't be told."""
    evaluator = EvalWithCompoundTypes(operators=_OPERATORS, functions=dict(_FUNCTIONS), names=dict(arguments))
    try:
        return bool(evaluator.eval(expression.strip()))
    except Exception:  # an argument that is missing, of another type, …: whatever it is, a person is to look
        return True
