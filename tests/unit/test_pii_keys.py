"""Hashes of several keys side by side, and one spelling of each address."""

import hashlib
import hmac
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from loads import TRUSTING, FakeRecord, batch, event
from streamflow.pii_keys import PiiKeys, is_hashed, normal_form
from streamflow.postgres.rows.events import EventRows
from streamflow.privacy import Hasher
from streamflow.producer.lines import Accepted, LineReader
from streamflow.records import Origin
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.streams.user_events import USER_EVENTS
from streaming_workers.loader import Loader

NODE = shutil.which("node")
OLD = PiiKeys.parse("old")
BARE = PiiKeys.parse(None)
NEW = PiiKeys.parse('{"2026a": "new", "legacy": "old"}')
NEWEST = PiiKeys.parse('{"2026b": "newest", "2026a": "new", "legacy": "old"}')


def digest(secret: str, text: str) -> str:
    return hmac.new(secret.encode(), text.encode(), "sha256").hexdigest()


def test_a_key_with_an_id_hashes_what_the_key_before_it_gave() -> None:
    """As docs/privacy.md describes it for other clients."""
    before = digest("old", "ann@example.com")
    mark = "5f105f105f10" + digest("new", digest("old", ""))[:8]
    assert NEW.hash("ann@example.com") == mark + digest("new", before)[:44]
    first = PiiKeys.parse('{"2026a": "new"}')
    mark = "5f105f105f10" + digest("new", "")[:8]
    assert first.hash(" Ann@Example.com.") == mark + digest("new", "ann@example.com")[:44]


def test_one_key_without_an_id_hashes_as_ever() -> None:
    for keys in (OLD, PiiKeys.parse('{"legacy": "old"}')):
        assert keys.hash(" Ann@example.com") == digest("old", " Ann@example.com")
        assert keys.lifted(keys.hash("x")) == keys.hash("x")
    assert Hasher(b"{x").hash("ann@example.com") == digest("{x", "ann@example.com")
    bare = PiiKeys.parse('{"2026a": "new", "legacy": null}')
    hashed = hashlib.sha256(b"ann@example.com").hexdigest()
    assert bare.lifted(hashed) == bare.hash("ann@example.com")
    assert BARE.hash("ann@example.com") == hashed


@settings(deadline=None)  # of a machine that has other things to do
@given(address=st.emails())
def test_a_lifted_hash_is_what_the_newest_key_gives(address: str) -> None:
    address = normal_form(address)
    newest = NEWEST.hash(address)
    for keys in (OLD, NEW, NEWEST):
        assert is_hashed(keys.hash(address))
        assert NEWEST.lifted(keys.hash(address)) == newest
    assert NEWEST.lifted(newest) == newest  # never twice


def test_what_is_under_no_listed_key_is_not_lifted() -> None:
    ahead = NEWEST.hash("ann@example.com")
    assert NEW.lifted(ahead) is None  # of a producer that has the next key already
    assert OLD.lifted(ahead) is None
    without_old = PiiKeys.parse('{"2026b": "newest", "2026a": "new"}')
    assert without_old.lifted(OLD.hash("ann@example.com")) is None
    assert without_old.lifted(NEW.hash("ann@example.com")) is None
    other_secret = PiiKeys.parse('{"2026b": "newest", "2026a": "mistyped", "legacy": "old"}')
    assert other_secret.lifted(NEW.hash("ann@example.com")) is None
    assert NEW.lifted("no hash") is None


def test_all_hashes_of_an_address_newest_first() -> None:
    hasher = Hasher(NEWEST)
    hashes = hasher.hashes("Ann@example.com")
    assert hashes[0] == hasher.hash("ann@example.com")
    assert set(hashes) == {
        keys.lifted(digest("old", spelling)) or ""
        for keys in (NEWEST, NEW, OLD)
        for spelling in ("ann@example.com", "Ann@example.com")
    }
    assert Hasher(b"old").hashes("ann@example.com") == (digest("old", "ann@example.com"),)
    assert Hasher(PiiKeys.parse('{"a": "x"}')).hashes(" Ann@example.com") == (
        PiiKeys.parse('{"a": "x"}').hash("ann@example.com"),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": "secret', "begins with { and is not JSON"),
        (' {"a": "secret', "begins with { and is not JSON"),
        ("{}", "lists no key"),
        ('{"a": ""}', "has no key in entry 1"),
        ('{"a": "secret", "secret-2": null}', "has no key in entry 2"),
        ('{"a": {"b": "secret"}}', "has no key in entry 1"),
        ('{"secret": "a", "secret": "b"}', "has the id of entry 1 twice"),
        ('{"secret!": "a"}', "has an id that is not 1 to 32 letters"),
        ('{"": "secret"}', "has an id that is not 1 to 32 letters"),
        ('{"a b": "secret"}', "has an id that is not 1 to 32 letters"),
        ('{"legacy": "secret", "a": "secret2"}', "must list legacy last"),
        ('{"legacy": "", "a": "secret2"}', "must list legacy last"),
        ('{"a": "secret2", "legacy": ""}', "has no key in entry 2"),
        ('{"a": "secret\\ud800"}', "has a key that is not valid UTF-8"),
        ("secret\udcff", "has a key that is not valid UTF-8"),
    ],
)
def test_a_list_of_keys_that_makes_no_sense_is_one_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="^" + reason.replace("{", r"\{")) as caught:
        PiiKeys.parse(text)
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match=reason.replace("{", r"\{")):
        Settings(STREAMFLOW_PII_KEY=text)


# As FAULTS.md, A24, has them in same_address.ndjson, and neighbours.
GINA = ("gina@example.com", "Gina@Example.com", " gina@example.com ", "gina@EXAMPLE.com")


@pytest.mark.parametrize(
    "spellings",
    [
        (*GINA, "gina@example.com.", "\uff47ina@\uff45xample.com", "\tgina@example.com\r\n"),
        ("ren\u00e9@example.com", "rene\u0301@example.com", "REN\u00c9@example.com"),
        ("a@b\u00fccher.example", "a@BU\u0308CHER.example.", "a@xn--bcher-kva.example"),
        ("a@b\u00fccher.example", "a@b\u00fccher\u3002example\u3002"),
        ("a@127.0.0.1", "A@127.0.0.1."),
        ("\uff41\ufe6bb.example", "a@b.example"),
    ],
)
def test_spellings_of_one_address_have_one_hash(spellings: tuple[str, ...]) -> None:
    hasher = Hasher(PiiKeys.parse('{"2026a": "new"}'), ("user_email",))
    assert len({hasher.hash(spelling) for spelling in spellings}) == 1
    reader = LineReader(USER_EVENTS, hasher)
    values = set()
    for spelling in spellings:
        line = json.dumps(json.loads(event()) | {"user_email": spelling})
        accepted = reader.read(line.encode())
        assert isinstance(accepted, Accepted)
        values.add(accepted.value)
    assert len(values) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("wei\u00df@example.com", "weiss@example.com"),
        ("a@stra\u00dfe.example", "a@strasse.example"),
        ("a.b@example.com", "ab@example.com"),
        ("a+b@example.com", "a@example.com"),
        ("\u0131@example.com", "i@example.com"),
        ("a@\U0001f600\U0001f600\u200d", "a@\u200d"),
    ],
)
def test_different_addresses_have_different_normal_forms(one: str, other: str) -> None:
    assert normal_form(one) != normal_form(other)


@settings(deadline=None)
@example("a@b . \u3002.")
@example("a@\u00fc..")
@given(address=st.text() | st.emails() | st.from_regex(r"\w+@[\w.]+", fullmatch=True))
def test_the_normal_form_of_a_normal_form_is_itself(address: str) -> None:
    assert normal_form(normal_form(address)) == normal_form(address)


def test_a_search_finds_an_address_under_each_key() -> None:
    hasher = Hasher(NEWEST, ("user_email",))
    found = hasher.redactions(b"to: ann@example.com")
    assert found == tuple(
        b"to: " + keys.hash("ann@example.com").encode() for keys in (NEWEST, NEW, OLD)
    )
    assert hasher.redactions(b"no address") == (b"no address",)


@pytest.mark.skipif(not NODE, reason="node is not installed")
def test_the_code_for_other_clients_gives_the_same_hashes() -> None:
    page = (Path(__file__).parents[2] / "docs/privacy.md").read_text()
    [code] = re.findall(r"```js\n(.*?)```", page, re.DOTALL)
    addresses = [
        "ann@example.com", " Ann@Example.com. ", "rene\u0301@example.com", "a@BU\u0308CHER.example\u3002",
        "wei\u00df@stra\u00dfe.example", "no address", "",
    ]  # fmt: skip
    for text, call in (
        ('{"c": "3", "b": "2", "legacy": "1"}', '["2", "3"], "1"'),
        ('{"b": "2", "legacy": null}', '["2"], null'),
        ('{"b": "2"}', '["2"], undefined'),
    ):
        code += f"console.log({json.dumps(addresses)}.map((each) => hashed(each, {call})).join());"
        wanted = [PiiKeys.parse(text).hash(address) for address in addresses]
        done = subprocess.run([str(NODE), "-e", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1].split(",") == wanted


class _Payment(USER_EVENTS.contract):  # type: ignore[misc, name-defined]
    note: str | None = None


def test_the_loader_lifts_hashes_of_older_keys() -> None:
    stream = Stream(
        name="payments",
        contract=_Payment,
        table="payments",
        key=lambda payment: payment.user,
        private_fields=("user_email", "note"),
    )
    rows = EventRows(stream, NEWEST)
    ann = [keys.hash("ann@example.com") for keys in (NEWEST, NEW, OLD)]
    lines = set()
    for hashed in ann:
        value = json.dumps(json.loads(event()) | {"user_email": hashed, "note": None})
        decoded = stream.decoder.decode(value.encode())
        lines.add(rows.line(decoded, Origin("payments", 0, 1), (0, 0)))  # type: ignore[arg-type]
    assert len(lines) == 1
    assert ann[0].encode() in lines.pop()


class _Friend(BaseModel):
    note: str
    id: str


class _Nested(_Payment):
    friends: list[_Friend]
    more: int | str = 0


def test_the_loader_lifts_hashes_at_any_depth() -> None:
    stream = Stream(
        name="payments",
        contract=_Nested,
        table="payments",
        key=lambda payment: payment.user,
        private_fields=("note",),
    )
    rows = EventRows(stream, NEWEST)
    ann, other = OLD.hash("ann@example.com"), "d" * 64
    friends = [{"note": ann, "id": other}, {"note": NEW.hash("ann@example.com"), "id": "\t\u00e4"}]
    value = json.dumps(json.loads(event()) | {"friends": friends, "more": other})
    decoded = stream.decoder.decode(value.encode())
    line = rows.line(decoded, Origin("payments", 0, 1), (0, 0)).decode()  # type: ignore[arg-type]
    plain = EventRows(stream).line(decoded, Origin("payments", 0, 1), (0, 0)).decode()  # type: ignore[arg-type]
    newest = NEWEST.hash("ann@example.com")
    assert line == plain.replace(ann, newest).replace(NEW.hash("ann@example.com"), newest)
    assert line.count(newest) == line.count(other) == 2


def test_producers_with_old_and_new_keys_give_one_person_one_hash() -> None:
    records = []
    for offset, keys in enumerate((OLD, NEWEST, NEW)):
        line = json.dumps(json.loads(event(offset)) | {"user_email": "ann@example.com"})
        accepted = LineReader(USER_EVENTS, Hasher(keys, ("user_email",))).read(line.encode())
        assert isinstance(accepted, Accepted)
        records.append(FakeRecord(offset, accepted.value))

    def hashes(keys: PiiKeys) -> set[bytes]:
        loader = Loader(Settings(), [USER_EVENTS], Hasher(keys), lambda: TRUSTING)
        lines = loader.process(batch(records)).tables["events"].lines
        assert len(lines) == 3
        return {found for line in lines for found in re.findall(rb"[0-9a-f]{64}", line)}

    newest = NEWEST.hash("ann@example.com").encode()
    assert hashes(NEWEST) == {newest}
    # A loader that does not have the newest key yet leaves its hashes as they are.
    assert hashes(NEW) == {newest, NEW.hash("ann@example.com").encode()}
    assert hashes(OLD) == {keys.hash("ann@example.com").encode() for keys in (OLD, NEW, NEWEST)}
