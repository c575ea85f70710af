"""The circuit breaker: a release that refuses everything stops before it has done harm (G6)."""

from collections import deque
from collections.abc import Sequence

from streamflow.errors import CircuitOpen


class Breaker:
    """Watches how many records are refused.

    Args:
        window: number of the last records that the ratio is taken of.
        ratio: share of refused records in that window that is too much.
        consecutive: refused records in a row that are too many.
    """

    def __init__(self, window: int, ratio: float, consecutive: int) -> None:
        self._window = window
        self._ratio = ratio
        self._consecutive = consecutive
        self._in_a_row = 0
        self._recent: deque[tuple[int, int]] = deque()

    def check(self, records: int, rejected: Sequence[int]) -> None:
        """Looks at a batch before it is committed.

        Args:
            records: number of records in the batch.
            rejected: index of each refused one, ascending.

        Raises:
            CircuitOpen: this batch would be too much; it must not be committed.
        """
        run, longest = self._runs(records, rejected)
        seen, refused = records, len(rejected)
        recent = deque([(records, len(rejected))])
        for size, count in reversed(self._recent):
            if seen >= self._window:
                break
            recent.appendleft((size, count))
            seen, refused = seen + size, refused + count
        if longest >= self._consecutive:
            raise CircuitOpen(f"{longest} records in a row were refused")
        if seen >= self._window and refused >= self._ratio * seen:
            raise CircuitOpen(f"{refused} of the last {seen} records were refused")
        self._in_a_row, self._recent = run, recent

    def _runs(self, records: int, rejected: Sequence[int]) -> tuple[int, int]:
        """Length of the run of refusals at the end, and of the longest one."""
        run = longest = self._in_a_row
        expected = 0
        for index in rejected:
            run = run + 1 if index == expected else 1
            longest = max(longest, run)
            expected = index + 1
        if expected != records:
            run = 0
        return run, longest
