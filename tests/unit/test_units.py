"""Numbers in words."""

import pytest

from streamflow.units import counted, either


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 rows are"), (1, "1 row is"), (2, "2 rows are"), (1_000_000, "1,000,000 rows are")],
)
def test_one_is_singular_and_none_is_plural(number: int, words: str) -> None:
    assert counted(number, "row", "is", "are") == words
    assert f"{counted(number, 'row')} {either(number, 'is', 'are')}" == words


def test_nouns_that_end_with_s() -> None:
    assert [counted(number, "address") for number in (1, 2)] == ["1 address", "2 addresses"]
