"""The short form of `make fuzz`: each record ends once, exactly as it came, and no address in clear."""

import pytest

from fuzz.records import NEEDLES, fuzz, holds_mark
from fuzz.shapes import FORMS, MARK, OPEN_BEFORE, OPEN_FORMS, OPEN_PLACES, Shapes
from streamflow.privacy import Hasher
from streamflow.settings import Settings

RECORDS = 20_000


@pytest.mark.integration
def test_every_fuzzed_record_is_accounted_for(database: Settings) -> None:
    findings = fuzz(database, RECORDS, seed=7).findings
    assert findings.problems == []
    assert not findings.leaks
    assert findings.kinds.total() == RECORDS
    # Not all of them ended in the same way.
    assert findings.outcomes["validator: valid"] > RECORDS / 10
    assert len(findings.outcomes) > 10


def test_a_seed_repeats_the_records() -> None:
    first, again, other = (list(Shapes(seed).take(500)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_mark_is_seen_however_it_is_written() -> None:
    text = f"x{MARK}@example.com".encode()
    for data in (text, text.hex().encode(), text.decode().encode("utf-16-le"), *NEEDLES):
        assert holds_mark(b"before " + data + b" behind")
    assert not holds_mark(b"before " + Hasher().redact(text) + b" behind")


def test_what_is_known_to_leak_is_planted_only_on_request() -> None:
    planted = [shape for shape in Shapes(1).take(5_000) if shape.form]
    assert {shape.form for shape in planted} == FORMS.keys() - OPEN_FORMS
    assert OPEN_PLACES.isdisjoint(shape.place for shape in planted)
    everything = [shape for shape in Shapes(1, everything=True).take(20_000) if shape.form]
    assert {shape.form for shape in everything} == FORMS.keys()


@pytest.mark.parametrize(
    "address",
    [
        pytest.param(
            text, marks=pytest.mark.xfail(strict=True, reason="A10") if form in OPEN_FORMS else ()
        )
        for form, text in FORMS.items()
    ]
    + [
        pytest.param(
            before.decode() + FORMS["plain"],
            marks=pytest.mark.xfail(strict=True, reason="an escaped @ hides what is behind it"),
        )
        for before in OPEN_BEFORE
    ],
)
def test_no_form_of_an_address_gets_out(address: str) -> None:
    assert not holds_mark(Hasher().redact(f"before {address} behind".encode()))
