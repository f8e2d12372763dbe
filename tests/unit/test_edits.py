"""What a person writes in place of a model's arguments."""

from types import SimpleNamespace

from holdfast.services import confirmations


def test_a_property_that_may_be_anything_has_no_default() -> None:
    schema = {"type": "object", "properties": {"note": True, "copies": {"type": "integer", "default": 1}}}
    asked = SimpleNamespace(arguments_schema=schema)
    fitted = confirmations._fitted(asked, {"note": "x"})  # type: ignore[arg-type]  # what is read of one
    assert fitted == {"note": "x", "copies": 1}
