"""What DuckDB is asked about the windows of the shop, and when a total agrees with its answer."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np
from datasketches import kll_doubles_sketch

Row = Mapping[str, Any]
Agree = Callable[[Any, Any], bool]  # what the view has, and what DuckDB answers


def _sum(found: Any, doubles: Sequence[float] | None) -> bool:
    """A sum of doubles is the exact one, rounded once."""
    return bool(found == (math.fsum(doubles) if doubles else None))


def _mean(found: Any, doubles: Sequence[float] | None) -> bool:
    if not doubles:
        return found is None
    return bool(found == float(sum(map(Fraction, doubles)) / len(doubles)))


def _mean_of_decimals(found: Any, numbers: Sequence[Decimal]) -> bool:
    exact = sum(map(Fraction, numbers)) / len(numbers)
    return abs(Fraction(found) - exact) < Fraction(1, 10**12)


def _about(lg_k: int) -> Agree:
    """Exact up to ``2**lg_k``, then within five standard errors."""

    def agree(found: Any, wanted: int) -> bool:
        if wanted <= 2**lg_k:
            return bool(found == wanted)
        return bool(abs(found - wanted) <= 5 * wanted / math.sqrt(2**lg_k))

    return agree


def _ranked(share: float, k: int) -> Agree:
    """Of so few numbers that nothing was thrown away, the very one; else one whose rank is as near as the
    sketch promises in 99 of 100 cases, three times over."""
    error = 3 * kll_doubles_sketch.get_normalized_rank_error(k, False)

    def agree(found: Any, numbers: Sequence[Any] | None) -> bool:
        ordered = np.sort(np.array([float(each) for each in numbers or ()]))
        if not len(ordered):
            return found is None
        wanted, slack = share * len(ordered), error * len(ordered)
        if len(ordered) <= k:
            return bool(
                found == ordered[max(math.ceil(Fraction(str(share)) * len(ordered)), 1) - 1]
            )
        low, high = (
            np.searchsorted(ordered, found, "left"),
            np.searchsorted(ordered, found, "right"),
        )
        return bool(low < high and low - slack <= wanted <= high + slack + 1)

    return agree


class Question(NamedTuple):
    """What is asked about one table of windows.

    Attributes:
        query: DuckDB's; the first columns are the window's start in microseconds, and the group.
        group: how many columns the group has.
        agree: by column, where the answer is not the value itself.
    """

    query: str
    group: int = 1
    agree: Mapping[str, Agree] = {}


_SESSIONS: Final = """
WITH marked AS (
    SELECT *, coalesce(us - lag(us) OVER own >= {gap}, true)::INT AS begins
      FROM {table} WINDOW own AS (PARTITION BY {key} ORDER BY us, source, position)
), numbered AS (
    SELECT *, sum(begins) OVER (PARTITION BY {key} ORDER BY us, source, position) AS island FROM marked
)
SELECT min(us) AS start, {key}, max(us) + {gap} AS until, count(*) AS counted, {columns}
  FROM numbered GROUP BY {key}, island
"""
_HOPS: Final = """
FROM {table}, range({hops}) AS later (hop)
 GROUP BY ALL
"""
QUESTIONS: Final[dict[str, Question]] = {
    "orders_10s": Question(
        """
        SELECT us // 10000000 * 10000000 AS start, country, count(*) AS orders, count(*) AS counted,
               sum(total) AS revenue, sum(total) FILTER (kind = 'placed') AS placed,
               list(total) AS mean_total,
               list(weight) AS weight, min(total) AS cheapest, max(total) AS dearest,
               max(customer) AS last_name, arg_min(customer, (us, source, position)) AS opened_by,
               arg_max(customer, (us, source, position)) AS closed_by
          FROM orders GROUP BY ALL
        """,
        agree={"mean_total": _mean_of_decimals, "weight": _sum},
    ),
    "orders_5min_by_1min": Question(
        """
        SELECT (us // 60000000 - hop) * 60000000 AS start, country, city, count(*) AS orders,
               count(*) AS counted, sum(total) AS revenue, count(DISTINCT customer) AS customers,
               list(total) AS order_value_p50, list(total) AS order_value_p99
        """
        + _HOPS.format(table="orders", hops=5),
        group=2,
        agree={"order_value_p50": _ranked(0.5, 200), "order_value_p99": _ranked(0.99, 200)},
    ),
    "orders_overall": Question(
        """
        SELECT us // 3600000000 * 3600000000 AS start, count(*) AS counted,
               count(DISTINCT customer) AS customers, count(DISTINCT customer) AS some,
               count(DISTINCT email) AS people, list(total) AS order_value_p50,
               list(total) AS order_value_p99, list(weight) AS weights_p0, list(weight) AS weights_p90
          FROM orders GROUP BY ALL
        """,
        group=0,
        agree={
            "some": _about(5), "people": _about(11), "order_value_p50": _ranked(0.5, 200),
            "order_value_p99": _ranked(0.99, 200), "weights_p0": _ranked(0, 16),
            "weights_p90": _ranked(0.9, 16),
        },
    ),
    "orders_sessions_30s": Question(
        _SESSIONS.format(
            table="orders", key="customer", gap=30_000_000,
            columns="""
                count(*) AS orders, sum(total) AS spent, list(weight) AS weight, list(total) AS mean_total,
                count(DISTINCT kind) AS kinds, arg_min(id, (us, source, position)) AS opening,
                quantile_disc(total, 0.5) AS order_value_p50, quantile_disc(total, 0.99) AS order_value_p99
            """,
        ),
        agree={"mean_total": _mean_of_decimals, "weight": _sum},
    ),
    "readings_1min": Question(
        """
        SELECT us // 60000000 * 60000000 AS start, device, count(*) AS readings, count(*) AS counted,
               count(temperature) AS measured, min(temperature) AS lowest, max(temperature) AS highest,
               list(temperature) FILTER (temperature IS NOT NULL) AS mean,
               list(temperature) FILTER (temperature IS NOT NULL) AS total,
               arg_max(temperature, (us, source, position)) FILTER (temperature IS NOT NULL) AS latest
          FROM readings GROUP BY ALL
        """,
        agree={"mean": _mean, "total": _sum},
    ),
    "readings_2min_by_30s": Question(
        """
        SELECT (us // 30000000 - hop) * 30000000 AS start, device, count(*) AS counted,
               list(temperature) FILTER (temperature IS NOT NULL) AS mean,
               list(temperature) FILTER (temperature IS NOT NULL) AS middle_p50,
               list(temperature) FILTER (temperature IS NOT NULL) AS middle_p99
        """
        + _HOPS.format(table="readings", hops=4),
        agree={"mean": _mean, "middle_p50": _ranked(0.5, 200), "middle_p99": _ranked(0.99, 200)},
    ),
    "readings_sessions_3s": Question(
        _SESSIONS.format(
            table="readings", key="device", gap=3_000_000,
            columns="""
                count(*) AS readings, list(temperature) FILTER (temperature IS NOT NULL) AS mean
            """,
        ),
        agree={"mean": _mean},
    ),
    # Of the second release: over the events from where it began.
    "orders_1min": Question(
        """
        SELECT us // 60000000 * 60000000 AS start, country, count(*) AS orders, count(*) AS counted,
               sum(total) AS revenue, count(DISTINCT customer) AS customers
          FROM orders WHERE position >= list_extract(getvariable('since'), source + 1) GROUP BY ALL
        """
    ),
    "window_counts": Question(
        "SELECT us // 10000000 * 10000000 AS start, kind, count(*) AS counted FROM orders GROUP BY ALL"
    ),
    # Some came too late: windows close no further than to the end of one that has an event.
    "orders_strict": Question(
        """
        SELECT us // 10000000 * 10000000 AS start, kind, count(*) AS counted,
               coalesce(sum(quantity), 0) AS pieces, count(*) FILTER (in_time) AS least_counted,
               coalesce(sum(quantity) FILTER (in_time), 0) AS least_pieces
          FROM (
            SELECT *, ahead OR until + 20 > coalesce(max(until) FILTER (NOT ahead) OVER earlier, 0) AS in_time
              FROM (SELECT *, us // 10000000 * 10 + 10 AS until, us > getvariable('now') AS ahead FROM orders)
            WINDOW earlier AS (PARTITION BY source ORDER BY position
                               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
          ) GROUP BY ALL
        """,
        agree={"pieces": operator.le, "least_counted": operator.ge, "least_pieces": operator.ge},
    ),
}  # fmt: skip
