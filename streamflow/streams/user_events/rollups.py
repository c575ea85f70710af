"""Bursts of failed logins: a rollup of ``user-events``."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from streamflow.daily_rollup import DailyRollup

if TYPE_CHECKING:
    from streamflow.settings import OrchestrationSettings

# A failure belongs to a burst if some span holds it together with enough others. Neighbours at most
# a span apart are one burst; midnight (UTC) ends it, so that each day can be computed on its own.
_BURSTS: Final = """
WITH failures AS (
    SELECT "user", "timestamp" AS at FROM {table}
     WHERE "timestamp" >= %(start)s - %(span)s AND "timestamp" < %(end)s + %(span)s
       AND type = 'USER_LOGIN_FAILED'
), scoped AS (
    SELECT 'user' AS scope, "user" AS who, "user", at, %(failures)s AS enough FROM failures
     UNION ALL
    SELECT 'all', '', "user", at, %(overall)s FROM failures
), counted AS (
    SELECT *, count(*) OVER (PARTITION BY scope, who ORDER BY at
                             RANGE BETWEEN %(span)s PRECEDING AND CURRENT ROW) AS recent
      FROM scoped
), judged AS (
    SELECT *, bool_or(recent >= enough) OVER (PARTITION BY scope, who ORDER BY at
                             RANGE BETWEEN CURRENT ROW AND %(span)s FOLLOWING) AS member
      FROM counted
), members AS (
    SELECT *, at - lag(at) OVER (PARTITION BY scope, who ORDER BY at) > %(span)s AS opens
      FROM judged WHERE member AND at >= %(start)s AND at < %(end)s
), numbered AS (
    SELECT *, count(*) FILTER (WHERE opens) OVER (PARTITION BY scope, who ORDER BY at) AS number
      FROM members
), bursts AS (
    SELECT scope, who, min(at) AS started_at, max(at) AS ended_at, count(*) AS failures,
           array_agg(DISTINCT "user") AS names, max(recent) AS peak
      FROM numbered GROUP BY scope, who, number
)
SELECT scope, who, started_at, ended_at, failures, cardinality(names), peak,
       EXISTS (SELECT FROM {table} AS login
                WHERE login."timestamp" >= started_at
                  AND login."timestamp" <= ended_at + %(span)s
                  AND login.type = 'USER_LOGIN' AND login."user" = ANY (names))
  FROM bursts
"""


def _parameters(settings: "OrchestrationSettings") -> dict[str, Any]:
    return {
        "span": timedelta(minutes=settings.burst_minutes),
        "failures": settings.burst_failures,
        "overall": settings.burst_failures_overall,
    }


LOGIN_FAILURE_BURSTS: Final = DailyRollup(
    table="login_failure_bursts",
    description="Bursts of failed logins, of one user and of all together: runs of failures, neighbours "
    "at most M minutes apart, each of which is in some span of M minutes with at least N failures "
    "(STREAMFLOW_BURST_MINUTES, STREAMFLOW_BURST_FAILURES of one user, "
    "STREAMFLOW_BURST_FAILURES_OVERALL of all). Midnight (UTC) ends a burst. `succeeded`: one of these "
    "users logged in during the burst or within M minutes after it.",
    columns={
        "scope": "text not null", "user": "text not null",
        "started_at": "timestamp with time zone not null",
        "ended_at": "timestamp with time zone not null", "failures": "bigint not null",
        "users": "bigint not null", "peak": "bigint not null", "succeeded": "boolean not null",
    },
    query=_BURSTS,
    parameters=_parameters,
    neighbours=True,
    order="failures DESC, started_at",
)  # fmt: skip
