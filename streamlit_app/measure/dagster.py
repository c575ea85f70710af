"""Dagster by its GraphQL interface: checks and their history, replay runs, and launching them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from streamflow import http
from streamflow.errors import Unavailable, UsageError

_TIMEOUT: Final = 8.0  # seconds
_LAUNCH_TIMEOUT: Final = 60.0  # seconds; a process is started before it answers
REPLAY_JOB: Final = "replay_dead_letters"
# Executions of a check. Each is reported twice, by its run and outside of it, so that it stays valid
# while workers report new rows (`streamflow_dagster.checks`).
_HISTORY: Final = 40

FINISHED: Final = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
_RUNNING: Final = "IN_PROGRESS"


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of a check.

    Attributes:
        run_id: empty for a result that was reported without a run.
        status: SUCCEEDED, FAILED, IN_PROGRESS, EXECUTION_FAILED or SKIPPED.
        severity: WARN or ERROR; empty where it did not come to that.
        at: seconds since the epoch.
    """

    run_id: str
    status: str
    severity: str
    at: float
    description: str
    metadata: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Check:
    """A data-quality check, with its executions from the newest."""

    asset: str
    name: str
    description: str
    blocking: bool
    executions: tuple[Execution, ...]

    @property
    def latest(self) -> Execution | None:
        """The newest one that is finished: what is known of the check while it runs again."""
        finished = (execution for execution in self.executions if execution.status != _RUNNING)
        return next(finished, None)

    @property
    def running_since(self) -> float | None:
        """When the newest execution began, if it is still running; seconds since the epoch."""
        newest = next(iter(self.executions), None)
        return newest.at if newest is not None and newest.status == _RUNNING else None


@dataclass(frozen=True, slots=True)
class ReplayRun:
    """A run of the replay job; summary and figures say what it did, and are empty before that."""

    status: str
    started_at: float | None
    ended_at: float | None
    summary: str
    figures: tuple[tuple[str, str], ...]

    def number(self, name: str) -> int | None:
        """A figure that is a whole number; None where there is none."""
        text = dict(self.figures).get(name, "")
        return int(text) if text.isdecimal() else None


class Dagster:
    """Asks Dagster's webserver at `url`, which browsers may reach at another one."""

    def __init__(self, url: str, public_url: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._public_url = (public_url or url).rstrip("/")

    def run_url(self, run_id: str) -> str:
        """A run's page, for a browser."""
        return f"{self._public_url}/runs/{run_id}"

    def checks(self) -> Sequence[Check]:
        """Every check with its last executions.

        Raises:
            Unavailable: Dagster does not answer.
        """
        nodes = self._ask(_CHECKS, {})["assetNodes"]
        known = [
            (node["assetKey"]["path"], check)
            for node in nodes
            for check in (node["assetChecksOrError"] or {}).get("checks", ())
        ]
        histories = self._executions([(path, check["name"]) for path, check in known])
        checks = [
            Check(
                "/".join(path),
                check["name"],
                check["description"] or "",
                bool(check["blocking"]),
                _once_per_run(map(_execution, history)),
            )
            for (path, check), history in zip(known, histories, strict=True)
        ]
        return sorted(checks, key=lambda check: (check.asset, check.name))

    def _executions(self, checks: list[tuple[list[str], str]]) -> list[list[dict[str, Any]]]:
        """The last executions of each check, in one query with an alias for each."""
        if not checks:
            return []
        names = ", ".join(f"$k{n}: AssetKeyInput!, $c{n}: String!" for n in range(len(checks)))
        parts = "\n".join(
            f"e{n}: assetCheckExecutions(assetKey: $k{n}, checkName: $c{n}, limit: {_HISTORY})"
            " { ...Execution }"
            for n in range(len(checks))
        )
        values: dict[str, Any] = {}
        for number, (path, name) in enumerate(checks):
            values |= {f"k{number}": {"path": path}, f"c{number}": name}
        histories = self._ask(f"query History({names}) {{ {parts} }} {_EXECUTION}", values)
        return [histories[f"e{number}"] for number in range(len(checks))]

    def run(self, run_id: str) -> ReplayRun | None:
        """A run of the replay job; None where Dagster does not know it.

        Raises:
            Unavailable: Dagster does not answer.
        """
        run = self._ask(_RUN, {"id": run_id})["runOrError"]
        if "runId" not in run:
            return None
        events = (run["eventConnection"] or {}).get("events", ())
        observed = [event for event in events if event["__typename"] == "ObservationEvent"]
        last: dict[str, Any] = {"description": "", "metadataEntries": ()}
        if observed:
            last = observed[-1]
        return ReplayRun(
            run["status"], run["startTime"], run["endTime"], last["description"] or "", _texts(last)
        )

    def launch(self, job: str, config: dict[str, Any]) -> str:
        """Starts a run of a job, and returns its id.

        Raises:
            Unavailable: Dagster does not answer.
            UsageError: Dagster rejects the run configuration.
        """
        selector = {
            "repositoryLocationName": self._location(job),
            "repositoryName": "__repository__",
            "jobName": job,
        }
        variables = {"selector": selector, "config": config}
        launched = self._ask(_LAUNCH, variables, timeout=_LAUNCH_TIMEOUT)["launchRun"]
        if launched["__typename"] == "LaunchRunSuccess":
            return str(launched["run"]["runId"])
        reasons = "; ".join(error["message"] for error in launched.get("errors", ()))
        raise UsageError(f"Dagster rejects the run: {reasons or launched.get('message', '?')}")

    def _location(self, job: str) -> str:
        repositories = self._ask(_LOCATIONS, {})["repositoriesOrError"].get("nodes", ())
        for repository in repositories:
            if any(known["name"] == job for known in repository["jobs"]):
                return str(repository["location"]["name"])
        raise Unavailable(f"Dagster at {self.url} has no job {job}: load streamflow_dagster")

    def _ask(
        self, query: str, variables: dict[str, Any], *, timeout: float = _TIMEOUT
    ) -> dict[str, Any]:
        body = {"query": query, "variables": variables}
        try:
            response = http.request("POST", f"{self.url}/graphql", timeout=timeout, json=body)
            answer = response.json() if response.ok else {}
        except (Unavailable, ValueError) as error:
            raise Unavailable(
                f"Dagster does not answer at {self.url} ({error}): start it with `streamflow up`, "
                "or set STREAMFLOW_DAGSTER_URL"
            ) from error
        if not response.ok:
            words = http.first_words(response)
            raise Unavailable(f"Dagster at {self.url} answers {response.status_code}: {words}")
        if answer.get("errors"):
            raise Unavailable(f"Dagster at {self.url}: {answer['errors'][0]['message']}")
        data: dict[str, Any] = answer["data"]
        return data


def _once_per_run(executions: Iterable[Execution]) -> tuple[Execution, ...]:
    """The first one of each run, and all those without a run."""
    kept: dict[object, Execution] = {}
    for number, execution in enumerate(executions):
        kept.setdefault(execution.run_id or number, execution)
    return tuple(kept.values())


def _execution(execution: dict[str, Any]) -> Execution:
    evaluation = execution["evaluation"] or {"metadataEntries": ()}
    reported_by = [entry["runId"] for entry in evaluation["metadataEntries"] if entry.get("runId")]
    return Execution(
        execution["runId"] or next(iter(reported_by), ""),
        execution["status"],
        evaluation.get("severity") or "",
        float(execution["timestamp"]),
        evaluation.get("description") or "",
        _texts(evaluation),
    )


def _texts(holder: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Metadata as label and text, whatever its kind; without the run that reported it."""
    return tuple(
        (entry["label"], _text(entry))
        for entry in holder["metadataEntries"]
        if not entry.get("runId")
    )


def _text(entry: dict[str, Any]) -> str:
    for field in (
        "text", "intRepr", "floatValue", "boolValue", "mdStr", "jsonString", "url", "path",
        "timestamp",
    ):  # fmt: skip
        if entry.get(field) is not None:
            return str(entry[field])
    table = entry.get("table")
    return "; ".join(table["records"]) if table else ""


_ENTRY: Final = """
fragment Entry on MetadataEntry {
  label
  ... on TextMetadataEntry { text }
  ... on IntMetadataEntry { intRepr }
  ... on FloatMetadataEntry { floatValue }
  ... on BoolMetadataEntry { boolValue }
  ... on MarkdownMetadataEntry { mdStr }
  ... on JsonMetadataEntry { jsonString }
  ... on UrlMetadataEntry { url }
  ... on PathMetadataEntry { path }
  ... on TimestampMetadataEntry { timestamp }
  ... on TableMetadataEntry { table { records } }
  ... on PipelineRunMetadataEntry { runId }
}
"""
_CHECKS: Final = """
query Checks {
  assetNodes {
    assetKey { path }
    assetChecksOrError { ... on AssetChecks { checks { name description blocking } } }
  }
}
"""
_EXECUTION: Final = f"""{_ENTRY}
fragment Execution on AssetCheckExecution {{
  runId status timestamp
  evaluation {{ severity description metadataEntries {{ ...Entry }} }}
}}
"""
_RUN: Final = f"""{_ENTRY}
query Run($id: ID!) {{
  runOrError(runId: $id) {{
    ... on Run {{
      runId status startTime endTime
      eventConnection(limit: 500) {{
        events {{
          __typename
          ... on ObservationEvent {{ description metadataEntries {{ ...Entry }} }}
        }}
      }}
    }}
  }}
}}
"""
_LOCATIONS: Final = """
query Locations {
  repositoriesOrError {
    ... on RepositoryConnection { nodes { location { name } jobs { name } } }
  }
}
"""
_LAUNCH: Final = """
mutation Launch($selector: JobOrPipelineSelector!, $config: RunConfigData!) {
  launchRun(executionParams: {selector: $selector, runConfigData: $config}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on PythonError { message }
    ... on PipelineNotFoundError { message }
    ... on UnauthorizedError { message }
    ... on InvalidSubsetError { message }
  }
}
"""
