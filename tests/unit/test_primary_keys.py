"""Primary keys of upsert streams that may be longer than an index can hold."""

from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, create_model

from streamflow.check import _declared
from streamflow.postgres import state
from streamflow.settings import Settings
from upserts import CUSTOMERS, Customer


@pytest.mark.parametrize(
    ("fields", "key", "unbounded"),
    [
        ({"id": (str, ...)}, ("id",), ["id"]),
        ({"id": (Annotated[str, Field(max_length=500)], ...)}, ("id",), []),
        ({"id": (Annotated[str, Field(max_length=501)], ...)}, ("id",), ["id"]),
        ({"id": (Literal["a", "b"], ...)}, ("id",), []),
        ({"id": (int, ...)}, ("id",), []),
        ({"id": (str, ...), "shop": (int, ...)}, ("shop", "id"), ["id"]),
        ({"id": (Decimal, ...)}, ("id",), ["id"]),
        ({"id": (Annotated[Decimal, Field(max_digits=9)], ...)}, ("id",), []),
    ],
)
def test_a_key_that_may_be_too_long_is_known_from_the_declaration(
    fields: dict[str, Any], key: tuple[str, ...], unbounded: list[str]
) -> None:
    contract = create_model("Keyed", __base__=Customer, **fields)
    stream = replace(CUSTOMERS, contract=contract, primary_key=key)
    assert state.unbounded_key(stream) == unbounded
    checked = _declared(Settings(), stream)
    notes = [note for note in checked.notes if not note.startswith("fast decoding: ")]
    assert [note.startswith("primary key: by the contract ") for note in notes] == (
        [True] * bool(unbounded)
    )
    assert checked.as_dict()["notes"] == checked.notes
