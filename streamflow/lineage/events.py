"""Lineage as OpenLineage's events."""

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final, NamedTuple

from openlineage.client.event_v2 import InputDataset, OutputDataset, Run, RunEvent, RunState
from openlineage.client.event_v2 import Job as JobOfEvent
from openlineage.client.facet_v2 import (
    column_lineage_dataset,
    error_message_run,
    job_type_job,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
    schema_dataset,
    sql_job,
)

from streamflow.extras import DISTRIBUTION
from streamflow.lineage.datasets import Dataset, Job, Source

_PRODUCER: Final = f"urn:streamflow:{version(DISTRIBUTION)}"


class RunOf(NamedTuple):
    """A run of a job.

    Attributes:
        parent: id and job of the run that this one is a part of.
    """

    id: str
    namespace: str
    job: Job
    parent: tuple[str, str] | None = None


def event_of(
    run: RunOf, state: RunState, rows: Mapping[str, int], *, failure: str | None = None
) -> RunEvent:
    """The event that a run is in this state now.

    Args:
        run: which.
        state: of the run.
        rows: how many rows or records it has written by now, by the dataset's title.
        failure: why it failed.
    """
    return RunEvent(
        eventTime=datetime.now(UTC).isoformat(timespec="milliseconds"),
        producer=_PRODUCER,
        eventType=state,
        run=Run(runId=run.id, facets=_run_facets(run, failure)),
        job=JobOfEvent(namespace=run.namespace, name=run.job.name, facets=_job_facets(run.job)),
        inputs=[
            InputDataset(*dataset.name, facets=_facets(dataset, with_sources=False))
            for dataset in run.job.inputs
        ],
        outputs=[
            OutputDataset(
                *dataset.name,
                facets=_facets(dataset, with_sources=True),
                outputFacets=_statistics(rows.get(dataset.title)),
            )
            for dataset in run.job.outputs
        ],
    )


def _run_facets(run: RunOf, failure: str | None) -> dict[str, Any]:
    facets: dict[str, Any] = {
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
            version=version(DISTRIBUTION), name="streamflow", producer=_PRODUCER
        )
    }
    if run.parent is not None:
        facets["parent"] = parent_run.ParentRunFacet(
            run=parent_run.Run(runId=run.parent[0]),
            job=parent_run.Job(namespace=run.namespace, name=run.parent[1]),
            producer=_PRODUCER,
        )
    if failure is not None:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            message=failure, programmingLanguage="PYTHON", producer=_PRODUCER
        )
    return facets


def _job_facets(job: Job) -> dict[str, Any]:
    facets: dict[str, Any] = {
        "jobType": job_type_job.JobTypeJobFacet(
            processingType="STREAMING" if job.is_streaming else "BATCH",
            integration="STREAMFLOW",
            jobType="JOB",
            emissionPattern=job_type_job.EmissionPattern(
                eventTrigger="PERIODIC" if job.is_streaming else "EVENT_BASED",
                eventContentMode="ACCUMULATIVE",
            ),
            producer=_PRODUCER,
        )
    }
    if job.query is not None:
        facets["sql"] = sql_job.SQLJobFacet(query=job.query, producer=_PRODUCER)
    return facets


def _facets(dataset: Dataset, *, with_sources: bool) -> dict[str, Any]:
    facets: dict[str, Any] = {}
    if dataset.columns:
        facets["schema"] = schema_dataset.SchemaDatasetFacet(
            fields=[
                schema_dataset.SchemaDatasetFacetFields(name=name, type=kind)
                for name, kind in dataset.columns.items()
            ],
            producer=_PRODUCER,
        )
    if with_sources and dataset.sources:
        facets["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(
            fields={
                column: column_lineage_dataset.Fields(inputFields=[*map(_input_field, sources)])
                for column, sources in dataset.sources.items()
            },
            producer=_PRODUCER,
        )
    return facets


def _input_field(source: Source) -> column_lineage_dataset.InputField:
    kind = "DIRECT" if source.how.is_direct else "INDIRECT"
    how = column_lineage_dataset.Transformation(type=kind, subtype=source.how.value, masking=False)
    return column_lineage_dataset.InputField(
        *source.dataset, field=source.field, transformations=[how]
    )


def _statistics(rows: int | None) -> dict[str, Any]:
    if rows is None:
        return {}
    facet = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=rows, producer=_PRODUCER
    )
    return {"outputStatistics": facet}
