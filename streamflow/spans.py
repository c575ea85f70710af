"""Where in some bytes is what was found in another form of them. Pure."""

import re
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Final

Spans = list[tuple[int, int]]

_SMALL: Final = 65_536  # bytes


def replaced(data: bytes, escapes: re.Pattern[bytes], meaning: Callable[[bytes], bytes]) -> bytes:
    """The text that some data become when each escape is replaced by its meaning."""
    if len(data) <= _SMALL:
        return escapes.sub(lambda match: meaning(match[0]), data)
    # `re.sub` keeps a hundred bytes for each escape until the end.
    text = bytearray()
    done = 0
    for match in escapes.finditer(data):
        start, end = match.span()
        text += data[done:start]
        text += meaning(match[0])
        done = end
    text += data[done:]
    return bytes(text)


def originals(
    data: bytes,
    spans: Iterable[tuple[int, int]],
    escapes: re.Pattern[bytes],
    meaning: Callable[[bytes], bytes],
) -> Spans:
    """Where in the data is what was found in the text that it becomes when each escape is replaced by its
    meaning. Spans are in order; memory only for what was found."""
    found = escapes.finditer(data)
    start = after = 0  # of an escape in the data
    first = last = 0  # and of its meaning in the text
    places = []
    for index, place in enumerate(chain.from_iterable(spans)):
        while last < place and (match := next(found, None)):
            first = last + match.start() - after
            start, after = match.span()
            last = first + len(meaning(match[0]))
        if place <= first:
            places.append(start - (first - place))
        elif place < last:  # one escape stands for several bytes
            places.append(after if index % 2 else start)
        else:
            places.append(after + place - last)
    return list(zip(places[::2], places[1::2], strict=True))


def merged(spans: Spans) -> Spans:
    joined: Spans = []
    for begin, end in sorted(spans):
        if joined and begin < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((begin, end))
    return joined
