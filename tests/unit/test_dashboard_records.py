"""Records for people: masked first, then filtered; and markup that nothing can break out of."""

import pytest

from loads import FakeRecord
from streamflow.errors import UsageError
from streamflow.privacy import Hasher
from streamlit_app.records.filters import Filter
from streamlit_app.records.masking import LONGEST, SeenRecord, mask
from streamlit_app.ui.markup import Html, Tone, banner, chip, link, table, timeline

HASHER = Hasher(private_fields=("user_email",))
VALUE = (
    b'{"id":7,"type":"USER_LOGIN","user":"Ann","items":[{"price":4}],"a.b":{"c":null},'
    b'"user_email":"ann@example.com"}'
)


def seen(value: bytes | None = VALUE, **more: object) -> SeenRecord:
    return mask(FakeRecord(5, value, **more), HASHER)  # type: ignore[arg-type]


def test_a_record_is_masked_before_anything_else() -> None:
    record = seen(
        key=b"ann@example.com", headers=[("from", b"ann@example.com"), ("ann@example.com", None)]
    )
    hashed = HASHER.hash("ann@example.com")
    assert "ann@example.com" not in record.value
    assert hashed in record.value
    assert record.key == hashed
    assert record.headers == (("from", hashed), (hashed, None))


def test_what_is_masked_cannot_be_searched_for() -> None:
    assert not Filter(text="ann@example.com").compiled()(seen())
    assert not Filter(path='user_email = "ann@example.com"').compiled()(seen())
    assert Filter(text=HASHER.hash("ann@example.com")).compiled()(seen())


@pytest.mark.parametrize(
    ("value", "text", "binary"),
    [(None, "", False), (b"", "", False), (b"\xff{", "\\xff{", True), (b"\x00", "\x00", False)],
)
def test_any_bytes_can_be_shown(value: bytes | None, text: str, *, binary: bool) -> None:
    record = seen(value)
    assert (record.value, record.binary) == (text, binary)
    assert record.size == (None if value is None else len(value))


def test_a_long_value_is_cut_and_says_so() -> None:
    record = seen(b"x" * 1_000_000)
    assert record.is_cut
    assert len(record.value) == LONGEST
    assert record.size == 1_000_000


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (Filter(), True),
        (Filter(text="user_login"), True),
        (Filter(text="logout"), False),
        (Filter(partitions=frozenset({0})), True),
        (Filter(partitions=frozenset({1})), False),
        (Filter(key="ey"), True),
        (Filter(key="no"), False),
        (Filter(header="code"), True),
        (Filter(header="code=UNKNOWN"), True),
        (Filter(header="code=INVALID"), False),
        (Filter(path="type = USER_LOGIN"), True),
        (Filter(path='type == "USER_LOGIN"'), True),
        (Filter(path="$.type != USER_LOGIN"), False),
        (Filter(path="items[0].price > 3"), True),
        (Filter(path="items[0].price >= 4.5"), False),
        (Filter(path="items[1].price"), False),
        (Filter(path="items[0].price"), True),
        (Filter(path='["a.b"].c'), True),
        (Filter(path='["a.b"].c = null'), True),
        (Filter(path="user ~ ann"), True),
        (Filter(path="id < 7"), False),
        (Filter(path="id <= 7"), True),
        (Filter(path="type < 7"), False),
        (Filter(text="login", path="id = 7", key="key"), True),
        (Filter(text="login", path="id = 8", key="key"), False),
    ],
)
def test_filters(wanted: Filter, *, matches: bool) -> None:
    record = seen(key=b"key-1", headers=[("error_code", b"UNKNOWN_TYPE")])
    assert wanted.compiled()(record) is matches


def test_a_path_into_something_else_than_json_matches_nothing() -> None:
    assert not Filter(path="id").compiled()(seen(b"\xff"))
    assert not Filter(path="id").compiled()(seen(b"[1]"))


@pytest.mark.parametrize("path", ["items[", "= 3", "a..b", "a b c"])
def test_a_path_that_cannot_be_understood_says_so(path: str) -> None:
    with pytest.raises(UsageError, match="path"):
        Filter(path=path).compiled()


def test_no_value_can_write_into_a_page() -> None:
    evil = '<img src=x onerror="alert(1)">'
    shown = (
        table((evil,), [(evil,)])
        + banner(Tone.BAD, evil, evil)
        + chip(Tone.BAD, evil, evil)
        + timeline([(Tone.BAD, evil, evil)])
        + link("javascript:alert(1)", evil)
    )
    assert "<img" not in shown
    assert "javascript:" not in shown
    assert table(("a",), [(Html("<b>ours</b>"),)]).count("<b>ours</b>") == 1


def test_meaning_is_never_by_colour_alone() -> None:
    signs = {chip(tone, "word").split(">")[1].split(" ")[0] for tone in Tone}
    assert len(signs) == len(Tone)
