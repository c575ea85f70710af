"""One seeded generator of records as careless, broken and hostile producers write them.

Plain `random`, not hypothesis: a million records are made, and a seed repeats them.
"""

import json
import random
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from streamflow import records

EVENTS: Final = "user-events"
DERIVED: Final = ("analytics", "notifications", "dead-letter-topic")
# Of the topic of events; what forged and signed records claim to come from is in the others.
PARTITIONS: Final = (0, 1)
ELSEWHERE: Final = 2

# The local part of every planted address: where it is seen, an address is in clear.
MARK: Final = "zqplanted"
FORMS: Final = {
    "plain": f"{MARK}@example.com",
    "tag": f"{MARK}+tag@mail.example.co.uk",
    "unicode": f"{MARK}ö@exämple.de",
    "punycode": f"{MARK}@xn--exmple-cua.de",
    "mailto": f"mailto:{MARK}@example.com?subject=x",
    "angle": f"Dora <{MARK}@example.com>",
    "number": f"{MARK}@127.0.0.1",
    "escaped at": f"{MARK}\\u0040example.com",
    "escaped dot": f"{MARK}@example\\u002ecom",
    "two ats": f"{MARK}@work@example.com",
    "quoted": f'"{MARK} smith"@example.com',
    "literal": f"{MARK}@[192.0.2.7]",
    "percent": f"{MARK}%40example.com",
    "wide at": f"{MARK}\uff20example.com",
    "small at": f"{MARK}\ufe6bexample.com",
    "wide dot": f"{MARK}@example\u3002com",
    "braces": f"{{{MARK},emil}}@example.com",
    "comment": f"{MARK}(work)@example.com",
    "entity": f"{MARK}&#64;example.com",
    "quoted printable": f"{MARK}=40example.com",
    "apostrophe": f"'{MARK}'@example.com",
    "equals sign": f"{MARK}=@example.com",
    "one-dot leader": f"{MARK}@example\u2024com",
    "small stop": f"{MARK}@example\ufe52com",
    "letter in URL": f"{MARK}@ex%61mple.com",
    "tab": f"{MARK}@\\texample.com",
    "soft line break": f"{MARK}@exam=\\r\\nple.com",
    "entity in JSON": f"{MARK}\\u0026#64;example.com",
    "quoted at": f'"{MARK}@work"@example.com',
}
# Not recognised anywhere: what is mended moves out of these.
OPEN_FORMS: Final[frozenset[str]] = frozenset()
# Where an address can stand.
PLACES: Final = (
    "field",
    "raw",
    "key",
    "header",
    "private",
    "nested",
    "name",
    "header name",
    "utf-16",
)
OPEN_PLACES: Final[frozenset[str]] = frozenset()

TYPES: Final = ("USER_LOGIN", "USER_LOGIN_FAILED", "USER_LOGOUT", "USER_SIGNUP")
TEXTS: Final = (
    "", " ", "None", "null", "%s %d {} $1", "\\.", "\\N", "tab\there\nline\rreturn", "a\x00b", "\ud800",
    "\udc00x", "\U0001f600", "José", "Jose\u0301", "\u202eabc", "\ufeffbom", "\uffff", "a" * 256,
    "a" * 257, "\U0001d54f" * 256, "'; DROP TABLE events; --", "<script>alert(1)</script>", "../etc/passwd",
    "@", "a@", "@b.c", "a@b", "\x7f\x1b[31m", "\u2028", "USER_LOGIN", "0" * 64, "f" * 64, "F" * 64,
)  # fmt: skip
NUMBERS: Final = (
    "0", "-0", "-1", "1.0", "1e3", "1e400", "-1e400", "007", "9007199254740991", "9007199254740992",
    "9223372036854775807", "18446744073709551616", "1" * 40, "1" * 5000, "1.7976931348623157e308",
    "0.1000000000000000055", "NaN", "Infinity", "-Infinity", "0x10", "1_000", "+1", ".5", "5.", "true",
)  # fmt: skip
TIMES: Final = (
    "2026-11-26T10:00:00Z", "2026-11-26T10:00:00.123456789Z", "2026-11-26T10:00:00,5Z",
    "2026-11-26 10:00:00Z", "2026-11-26T24:00:00Z", "2016-12-31T23:59:60Z", "2026-11-26T10:00:00+24:00",
    "2026-11-26T10:00:00+23:59", "2026-11-26T10:00:00-23:59", "2026-11-26t10:00:00z",
    "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-02T00:00:00Z", "9999-12-30T00:00:00Z",
    "9999-12-30T00:00:00.000001Z", "9999-12-31T23:59:59Z", "2026-02-29T00:00:00Z", "2026-11-26T10:00Z",
    "0001-01-02T00:00:00+23:59", "9999-12-29T23:59:59-00:01", "1764151200", "2026-11-26T10:00:00",
    "٢٠٢٦-11-26T10:00:00Z", "2026-11-26T10:00:00Z\n", "-2026-11-26T10:00:00Z", "infinity", "epoch", "",
)  # fmt: skip
PIECES: Final = (
    b"\x00", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", b'"', b"\\", b"\\u0000", b"\\ud800",
    b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r", b"\t", b"\\.", b"\\N", b"null", b"NaN", b"1e999",
    b"//", b"/*", b"@", b"\\u0040", b"\x1e", b" ", b"\x80",
)  # fmt: skip
# What can stand before and behind an address in bytes of any kind.
BEFORE: Final = (
    b" ",
    b'"',
    b",",
    b"<",
    b"(",
    b"\n",
    b"\x00",
    b"\xff",
    b"x",
    b"=",
    b"[",
    b";",
    b"@",
    b"\\u0040",
    b"\\",
    b"\\n",
)
BEHIND: Final = (
    b" ",
    b'"',
    b",",
    b">",
    b")",
    b"\n",
    b"\x00",
    b"\xff",
    b"/x",
    b"?x",
    b"#x",
    b"]",
    b".",
)
OPEN_BEFORE: Final[frozenset[bytes]] = frozenset()
# A form in a place, or behind these bytes.
OPEN_PAIRS: Final[frozenset[tuple[str, str | bytes]]] = frozenset(
    {
        ("quoted", b"\\"), ("quoted at", b"\\"),
        # Digits may follow: behind these, the last label has to be letters.
        ("percent", "raw"), ("quoted printable", "raw"), ("tab", "raw"),
    }
)  # fmt: skip
OWN_HEADERS: Final = tuple(
    str(value)
    for name, value in vars(records).items()
    if name.endswith("_HEADER") and isinstance(value, str) and name != "SIGNATURE_HEADER"
)
_HEADER_TEXTS: Final = (
    b"", b"0", b"1", b"-1", b"999999999999999999999", b"user-events/0/5",
    b"user-events/1/18446744073709551615",
    b"dead-letter-topic/0/3", b"/0/0", b"a/b/c", b"\xff\xfe", b"true", b"false", b"SCHEMA_VIOLATION",
    b"\x00", b"validator", b"2026-11-26T10:00:00.000Z", b"0001-01-01", b"user-events", b"x" * 3000,
    "²".encode(), b"12/7", b"user-events/2/7",
)  # fmt: skip


def is_open(form: str, place: str, before: bytes) -> bool:
    """Whether an address is known not to be found there yet."""
    if form in OPEN_FORMS or place in OPEN_PLACES or before in OPEN_BEFORE:
        return True
    return not {(form, place), (form, before)}.isdisjoint(OPEN_PAIRS)


class Shape(NamedTuple):
    """A record to be sent, and how it was made."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: records.Headers | None  # None: names that are not UTF-8
    signed: bool  # as a worker signs, with content that no worker writes
    kind: str
    form: str = ""  # of the address in it, if any
    place: str = ""


class Shapes:
    """Makes records. `everything` also plants what is known not to be found yet."""

    def __init__(self, seed: int, *, everything: bool = False) -> None:
        self._random = random.Random(seed)
        self._number = 0
        self._everything = everything
        self._makers = (
            [self._valid] * 30 + [self._mutated] * 14 + [self._field] * 10 + [self._text] * 10
            + [self._numbers] * 6 + [self._times] * 8 + [self._nested] * 3 + [self._encoded] * 4
            + [self._noise] * 4 + [self._pieces] * 4 + [self._doubled] * 3 + [self._empty] * 2
        )  # fmt: skip

    def take(self, count: int) -> Iterator[Shape]:
        for _ in range(count):
            yield self.one()

    def one(self) -> Shape:
        self._number += 1
        chance = self._random
        roll = chance.random()
        if roll < 0.0002:
            return self._in_events(*self._huge())
        if roll < 0.15:
            return self._derived()
        make = chance.choice(self._makers)
        if roll < 0.27:
            return self._planted(make.__name__[1:], make())
        return self._in_events(make.__name__[1:], make())

    def _in_events(self, kind: str, value: bytes | None, form: str = "", place: str = "") -> Shape:
        chance = self._random
        key = b"key" if chance.random() < 0.9 else self._bytes()
        headers: records.Headers | None = []
        if chance.random() < 0.1:
            headers = self._headers()
        elif chance.random() < 0.01:
            headers = None
        partition = chance.choice(PARTITIONS)
        return Shape(EVENTS, partition, key, value, headers, False, kind, form, place)

    def _planted(self, kind: str, value: bytes | None) -> Shape:
        """The same with an address somewhere in it."""
        chance = self._random
        while True:
            form, place = chance.choice(list(FORMS)), chance.choice(PLACES)
            before = chance.choice(BEFORE)
            if self._everything or not is_open(form, place, before):
                break
        address = FORMS[form]
        raw = before + address.encode() + chance.choice(BEHIND)
        shape = self._in_events(kind, value, form, place)
        headers = shape.headers or []
        if place == "key":
            return shape._replace(key=raw)
        if place == "header":
            return shape._replace(headers=[*headers, ("trace", raw)])
        if place == "header name":
            return shape._replace(headers=[*headers, (raw.decode("utf-8", "replace"), b"x")])
        if place == "raw":
            value = value or b""
            for hiding in OPEN_BEFORE:
                value = value.replace(hiding, b"")
            at = chance.randrange(len(value) + 1)
            return shape._replace(value=value[:at] + raw + value[at:])
        # An escape in JSON's text stands for itself, so it is put in behind the serialiser.
        changes: dict[str, object] = {
            "field": {chance.choice(("user", "extra", "type")): "PLANT"},
            "utf-16": {"user": "PLANT"},
            "private": {"user_email": "PLANT"},
            "nested": {"tags": [["PLANT"]]} if chance.random() < 0.5 else {"extra": {"a": {"b": "PLANT"}}},
            "name": {"PLANT": 1} if chance.random() < 0.5 else {"extra": {"PLANT": 1}},
        }[place]  # fmt: skip
        text = address.replace('"', '\\"')
        value = self._json(**changes).replace(b"PLANT", text.encode())
        if place == "utf-16":
            codec = chance.choice(("utf-16-le", "utf-16-be", "utf-16", "utf-32-le"))
            value = value.decode().encode(codec)
        return shape._replace(value=value)

    def _derived(self) -> Shape:
        """A record in a topic that only workers write to."""
        chance = self._random
        topic = chance.choice(DERIVED)
        if topic == "analytics":
            first = chance.randrange(1 << 40)
            content = {
                "window_start": chance.choice(TIMES[:12]),
                "window_end": "2026-11-26T10:00:10Z",
                "event_type": chance.choice(TYPES + TEXTS),
                "count": chance.choice((1, 0, -1, 5, 1 << 62, 1 << 63)),
                "partition": chance.choice((0, 1, -1, 1 << 31)),
                "late": chance.choice((True, False, "no")),
                "first_offset": first,
                "last_offset": first + chance.choice((0, 5, -5, 1 << 62)),
            }
        else:
            content = {
                "message": chance.choice(TEXTS),
                "time": chance.choice(TIMES),
                "event_id": chance.choice((1, -1, 1 << 62, 1 << 63, "1")),
                "user": chance.choice(TEXTS),
            }
        value: bytes | None = json.dumps(content).encode()
        if chance.random() < 0.3:
            value = self._mutate(value or b"")
        elif chance.random() < 0.05:
            value = None
        signed = chance.random() < 0.5
        headers = self._claims() if signed else self._headers()
        if not signed and chance.random() < 0.3:
            headers = [*headers, (records.SIGNATURE_HEADER, self._bytes())]
        return Shape(topic, 0, self._bytes(), value, headers, signed, "derived")

    def _claims(self) -> records.Headers:
        """Headers as a worker's, of sources that nothing else is about."""
        chance = self._random
        offset = str(chance.randrange(100_000)).encode()
        headers: records.Headers = [
            (records.ORIGIN_HEADER, f"{EVENTS}/{ELSEWHERE}/".encode() + offset),
            (records.ERROR_TOPIC_HEADER, EVENTS.encode()),
            (records.ERROR_PARTITION_HEADER, str(ELSEWHERE).encode()),
            (records.ERROR_OFFSET_HEADER, offset),
        ]
        safe = [
            name
            for name in OWN_HEADERS
            if name not in dict(headers) and name != records.SOURCE_HEADER
        ]
        return headers + [
            (name, chance.choice(_HEADER_TEXTS)) for name in safe if chance.random() < 0.7
        ]

    def _headers(self) -> records.Headers:
        chance = self._random
        names = [
            *OWN_HEADERS,
            "trace",
            "",
            "\x00",
            "ü",
            "__streamflow.",
            "__connect.errors.unknown",
        ]
        made: records.Headers = []
        for _ in range(chance.choice((1, 2, 5, 12))):
            content = chance.choice((*_HEADER_TEXTS, None, self._bytes()))
            made.append((chance.choice(names), content))
        return made

    # The makers of values.

    def _valid(self) -> bytes:
        return self._json()

    def _json(self, **changes: object) -> bytes:
        number, chance = self._number, self._random
        second, milli = divmod(number * 7, 1000)
        fields: dict[str, object] = {
            "id": number,
            "type": TYPES[number % 4],
            "user": f"user-{number % 997}",
            "timestamp": f"2026-11-26T{second // 3600 % 24:02d}:{second // 60 % 60:02d}:"
            f"{second % 60:02d}.{milli:03d}Z",
        }
        if chance.random() < 0.3:
            fields["user_email"] = "ab" * 32
        return json.dumps(fields | changes, ensure_ascii=chance.random() < 0.5).encode(
            "utf-8", "surrogatepass"
        )

    def _mutated(self) -> bytes:
        return self._mutate(self._json())

    def _mutate(self, value: bytes) -> bytes:
        chance = self._random
        data = bytearray(value)
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(len(data) + 1)
            kind = chance.randrange(5)
            if kind == 0 and data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            elif kind == 1:
                data[at:at] = chance.choice(PIECES)
            elif kind == 2:
                del data[at : at + chance.choice((1, 2, 9))]
            elif kind == 3:
                del data[at:]
            else:
                data[at:at] = data[chance.randrange(len(data) + 1) :][:20]
        return bytes(data)

    def _field(self) -> bytes:
        """A field that is gone, added, or of another type."""
        chance = self._random
        document = json.loads(self._json())
        name = chance.choice((*document, "extra", "constructor", "__proto__", ""))
        if chance.random() < 0.3:
            document.pop(name, None)
        else:
            values = (None, True, 1, 1.5, [], {}, [[]], {"a": {"b": []}}, "x", -1)
            document[name] = chance.choice(values)
        return json.dumps(document).encode()

    def _text(self) -> bytes:
        chance = self._random
        name = chance.choice(("user", "user", "type", "user_email", "extra"))
        return self._json(**{name: chance.choice(TEXTS)})

    def _numbers(self) -> bytes:
        chance = self._random
        name = chance.choice(("id", "id", "extra"))
        return self._json(**{name: "NUMBER"}).replace(b'"NUMBER"', chance.choice(NUMBERS).encode())

    def _times(self) -> bytes:
        chance = self._random
        if chance.random() < 0.3:
            return self._json(timestamp=chance.choice(TIMES))
        text = (
            f"{chance.randrange(1, 10_000):04d}-{chance.randrange(0, 14):02d}-{chance.randrange(0, 33):02d}"
            f"T{chance.randrange(25):02d}:{chance.randrange(61):02d}:{chance.randrange(61):02d}"
            f".{chance.randrange(10**9)}{chance.choice(('Z', 'z', '+05:45', '-00:00', '+14:00', ''))}"
        )
        return self._json(timestamp=text)

    def _nested(self) -> bytes:
        depth = self._random.choice((5, 100, 1_000, 3_000))
        left, right = self._random.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"[", b"")))
        inner = left * depth + b"1" + right * depth
        return inner if self._random.random() < 0.3 else self._json(extra=0)[:-2] + inner + b"}"

    def _encoded(self) -> bytes:
        codecs = ("utf-16-le", "utf-16-be", "utf-16", "utf-32", "latin-1", "utf-7", "utf-8-sig")
        text = self._json(user=self._random.choice(("José", "ann"))).decode()
        return text.encode(self._random.choice(codecs), "replace")

    def _noise(self) -> bytes:
        return self._random.randbytes(self._random.choice((1, 7, 60, 400)))

    def _pieces(self) -> bytes:
        return b"".join(self._random.choices(PIECES, k=self._random.randrange(1, 30)))

    def _doubled(self) -> bytes:
        one = self._json()
        if self._random.random() < 0.5:
            return one + self._random.choice((b"", b"\n", b"\x1e")) + one
        return one[:-1] + b', "id": 3, "user": "again"}'

    def _empty(self) -> bytes | None:
        return self._random.choice((None, b"", b" ", b"{}", b"[]", b"null", b"0", b'""'))

    def _huge(self) -> tuple[str, bytes, str, str]:
        """Within what a compressed batch of 1 MiB can hold."""
        size = self._random.choice((300_000, 1_000_000, 3_400_000))
        address = FORMS["plain"].encode()
        kinds = {
            "addresses": b'{"list":"' + (address + b",") * (size // 22) + b'"}',
            "commas": b"[" + b"[]," * (size // 3) + b"[]]",
            "one word": b"a" * size,
            "ats": b"@" * size,
            "dots": b"a@" + b"a." * (size // 2),
            "text": self._json(user="x" * size),
            "escapes": b'{"user":"' + b"\\u0040" * (size // 6) + b'"}',
            "quotes": b'"' * size,
            "nul": b"\x00" * size,
            "numbers": b"[" + b"1," * (size // 2) + b"1]",
            "binary": struct.pack("<I", size) * (size // 4),
        }
        kind = self._random.choice(list(kinds))
        return f"huge {kind}", kinds[kind], "plain" if kind == "addresses" else "", "raw"

    def _bytes(self) -> bytes | None:
        chance = self._random
        if chance.random() < 0.1:
            return None
        return chance.choice(
            (b"", b"key", b"\xff\xfe", b"\x00", "ключ".encode(), chance.randbytes(9))
        )
