"""Dagster by its GraphQL interface: checks and their history, replay runs, and launching them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from streamflow import http
from streamflow.errors import Unavailable, UsageError

_TIMEOUT: Final = 8.0  # seconds
_LAUNCH_TIMEOUT: Final = 60.0  # seconds; a process is started before it answers
REPOSITORY: Final = "__repository__"
REPLAY_JOB: Final = "replay_dead_letters"
# Executions of a check. Each is reported twice, by its run and outside of it, so that it stays valid
# while workers report new rows (`streamflow_dagster.checks`).
_HISTORY: Final = 40

FINISHED: Final = frozenset({"SUCCESS", "FAILURE", "CANCELED"})


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of a check.

    Attributes:
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
    """A data-quality check, its executions from the newest."""

    asset: str
    name: str
    description: str
    blocking: bool
    executions: tuple[Execution, ...]


@dataclass(frozen=True, slots=True)
class ReplayRun:
    """A run of the replay job.

    Attributes:
        summary: what it came to, in words; empty before that.
        figures: what it came to, by name.
    """

    run_id: str
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
    """Asks Dagster.

    Args:
        url: of its webserver.
        public_url: of the same for a browser, where it is another.
    """

    name = "Dagster"

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
            (node["assetKey"]["path"], each)
            for node in nodes
            for each in (node["assetChecksOrError"] or {}).get("checks", ())
        ]
        executions = self._executions([(path, each["name"]) for path, each in known])
        checks = [
            Check(
                "/".join(path),
                each["name"],
                each["description"] or "",
                bool(each["blocking"]),
                _once(_execution(one) for one in found),
            )
            for (path, each), found in zip(known, executions, strict=True)
        ]
        return sorted(checks, key=lambda check: (check.asset, check.name))

    def _executions(self, checks: list[tuple[list[str], str]]) -> list[list[dict[str, Any]]]:
        """The last executions of each check, in one question with an alias for each."""
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
        found = self._ask(f"query History({names}) {{ {parts} }} {_EXECUTION}", values)
        return [found[f"e{number}"] for number in range(len(checks))]

    def run(self, run_id: str) -> ReplayRun | None:
        """A run of the replay job; None where Dagster does not know it.

        Raises:
            Unavailable: Dagster does not answer.
        """
        found = self._ask(_RUN, {"id": run_id})["runOrError"]
        return _run(found) if "runId" in found else None

    def launch(self, job: str, config: dict[str, Any]) -> str:
        """Starts a run of a job, and returns its id.

        Raises:
            Unavailable: Dagster does not answer.
            UsageError: Dagster rejects the run configuration.
        """
        location = self._location(job)
        found = self._ask(
            _LAUNCH,
            {
                "selector": {
                    "repositoryLocationName": location,
                    "repositoryName": REPOSITORY,
                    "jobName": job,
                },
                "config": config,
            },
            timeout=_LAUNCH_TIMEOUT,
        )["launchRun"]
        if found["__typename"] == "LaunchRunSuccess":
            return str(found["run"]["runId"])
        reasons = [each["message"] for each in found.get("errors", ())]
        raise UsageError(
            "Dagster rejects the run: " + ("; ".join(reasons) or found.get("message", "?"))
        )

    def _location(self, job: str) -> str:
        found = self._ask(_LOCATIONS, {})["repositoriesOrError"]
        for repository in found.get("nodes", ()):
            if job in {each["name"] for each in repository["jobs"]}:
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


def _run(found: dict[str, Any]) -> ReplayRun:
    observed = [
        event
        for event in (found["eventConnection"] or {}).get("events", ())
        if event["__typename"] == "ObservationEvent"
    ]
    observation: dict[str, Any] = (
        observed[-1] if observed else {"description": "", "metadataEntries": ()}
    )
    return ReplayRun(
        found["runId"],
        found["status"],
        found["startTime"],
        found["endTime"],
        observation["description"] or "",
        tuple((entry["label"], _text(entry)) for entry in observation["metadataEntries"]),
    )


def _once(executions: Iterable[Execution]) -> tuple[Execution, ...]:
    """One of each run, and those that belong to none."""
    seen: set[str] = set()
    kept = []
    for each in executions:
        if each.run_id not in seen:
            kept.append(each)
            seen |= {each.run_id} - {""}
    return tuple(kept)


def _execution(found: dict[str, Any]) -> Execution:
    evaluation = found["evaluation"] or {}
    entries = evaluation.get("metadataEntries", ())
    outside_of = next((entry["runId"] for entry in entries if entry.get("runId")), "")
    return Execution(
        found["runId"] or outside_of,
        found["status"],
        evaluation.get("severity") or "",
        float(found["timestamp"]),
        evaluation.get("description") or "",
        tuple((entry["label"], _text(entry)) for entry in entries if not entry.get("runId")),
    )


def _text(entry: dict[str, Any]) -> str:
    """A metadata entry's value as text, whatever its kind."""
    for field in (
        "text", "intRepr", "floatValue", "boolValue", "mdStr", "jsonString", "url", "path",
        "timestamp",
    ):  # fmt: skip
        if entry.get(field) is not None:
            return str(entry[field])
    table = entry.get("table")
    return "; ".join(table["records"]) if table else ""


_ENTRIES: Final = """
metadataEntries {
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
_EXECUTION: Final = (
    """
fragment Execution on AssetCheckExecution {
  runId status timestamp
  evaluation { severity description """
    + _ENTRIES
    + """ }
}
"""
)
_RUN: Final = (
    """
query Run($id: ID!) {
  runOrError(runId: $id) {
    ... on Run {
      runId status startTime endTime
      eventConnection(limit: 500) {
        events { __typename ... on ObservationEvent { description """
    + _ENTRIES
    + """ } }
      }
    }
    ... on RunNotFoundError { message }
    ... on PythonError { message }
  }
}
"""
)
_LOCATIONS: Final = """
query Locations {
  repositoriesOrError {
    ... on RepositoryConnection { nodes { name location { name } jobs { name } } }
    ... on PythonError { message }
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
