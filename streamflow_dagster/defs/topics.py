"""Topics as assets: materializing one creates or alters the broker's topic as declared."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from typing import Any

import dagster as dg

from streamflow.kafka.offsets import bounds, partitions_of
from streamflow.kafka.ownership import Drift, Owner, refusal, surplus
from streamflow.kafka.reader import Scanner
from streamflow.kafka.topic_changes import postponed, risk
from streamflow.kafka.topics import drifts, owners, provision_topics
from streamflow.postgres.owned_topics import TopicsTable
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow_dagster.catalog import (
    OWNERS,
    PRODUCERS,
    TOPICS,
    Catalog,
    TopicEntry,
    producer_key,
    schema_metadata,
)
from streamflow_dagster.checks import TopicChecks, define_checks
from streamflow_dagster.failures import as_dagster_failure, retrying
from streamflow_dagster.resources import Platform
from streamflow_dagster.verdicts import CheckResult

# Workers report every half minute, and every five minutes if there is no traffic.
FRESHNESS = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(minutes=12), fail_window=timedelta(minutes=20)
)
SPECIFICATION = "as_declared"


def producer_specs(catalog: Catalog) -> list[dg.AssetSpec]:
    """What sends events. It runs outside of Dagster."""
    return [
        dg.AssetSpec(
            key=producer_key(stream),
            group_name=PRODUCERS,
            owners=OWNERS,
            kinds={"python", "kafka"},
            description=f"Sends events of {stream.name}, with hashed addresses: `streamflow produce`, or "
            "any other client that keeps the contract.",
        )
        for stream in catalog.streams
    ]


def unmanaged_topic_specs(catalog: Catalog) -> list[dg.AssetSpec]:
    return [
        dg.AssetSpec(
            key=entry.key,
            deps=entry.deps,
            group_name=TOPICS,
            owners=OWNERS,
            kinds={"kafka"},
            description=f"{entry.description}\n\nStreamFlow does not manage this topic "
            "(`Topics(managed=False)`): it only reads it, and never alters it.",
            metadata={"topic": entry.spec.name, **schema_metadata(entry.columns)},
        )
        for entry in catalog.unmanaged_topics
    ]


def topic_assets(catalog: Catalog) -> list[dg.AssetsDefinition]:
    """One asset for each topic that StreamFlow manages."""
    return [_topic_asset(entry) for entry in catalog.topics]


def _topic_asset(entry: TopicEntry) -> dg.AssetsDefinition:
    @dg.asset(
        key=entry.key,
        deps=entry.deps,
        group_name=TOPICS,
        owners=OWNERS,
        kinds={"kafka"},
        description=f"{entry.description}\n\nMaterializing it creates or alters the topic until it is as "
        "declared. What would move keys or remove records is left to `streamflow topics --apply`, and a "
        "topic that StreamFlow neither created nor adopted is never altered.",
        metadata={"topic": entry.spec.name, **schema_metadata(entry.columns)},
        freshness_policy=FRESHNESS,
        retry_policy=retrying(),
    )
    def topic(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult[Any]:
        settings = platform.settings()
        with as_dagster_failure():
            drifted = provision_topics(settings, [entry.spec], TopicsTable(settings))
            measured = _measured(platform, settings, entry)
        made = [drift for drift in drifted if not drift.is_surplus and risk(drift) is None]
        changes = [_describe(drift) for drift in made]
        for change in changes:
            context.log.info(change)
        for line in (*surplus(drifted), *postponed(drifted)):
            context.log.warning(line)
        changed = dg.MetadataValue.md("\n".join(f"- {change}" for change in changes))
        return dg.MaterializeResult(
            metadata={**measured, "changed": changed if changes else "nothing"}
        )

    return topic


def _measured(
    platform: Platform, settings: OrchestrationSettings, entry: TopicEntry
) -> dict[str, Any]:
    """What the topic holds. Records are read to be counted, since transaction markers occupy offsets too;
    in a topic too long for that, their number stays unknown."""
    client = platform.admin(settings)
    topic_bounds = bounds(client, partitions_of(client, [entry.spec.name]))
    held = sum(end - first for first, end in topic_bounds.values())
    columns = [dg.TableColumn(name, "int") for name in ("partition", "first", "end")]
    metadata: dict[str, Any] = {
        "partitions": len(topic_bounds),
        "retention_hours": int(entry.spec.config["retention.ms"]) / 3_600_000,
        "offsets_held": held,
        "end_offsets": sum(end for _, end in topic_bounds.values()),
        "offsets": dg.TableMetadataValue(
            records=[
                dg.TableRecord({"partition": partition, "first": first, "end": end})
                for (_, partition), (first, end) in sorted(topic_bounds.items())
            ],
            schema=dg.TableSchema(columns=columns),
        ),
    }
    if held > settings.count_offsets:
        unknown = f"not counted: more than {settings.count_offsets:,} offsets"
        return {**metadata, "records_unknown": unknown}
    records = size = 0
    with closing(Scanner(settings)) as scanner:
        for partition, (first, end) in topic_bounds.items():
            for message in scanner.records(partition, first, end):
                records += 1
                size += len(message.value() or b"") + len(message.key() or b"")
    # Keys and values, not compressed: not what the broker's disk holds.
    return {**metadata, "records": records, "bytes": size}


def topic_checks(catalog: Catalog) -> dg.AssetChecksDefinition:
    description = "The broker's topic has the partitions and settings that are declared."
    checks = [(entry, SPECIFICATION) for entry in catalog.topics]
    return define_checks("topics_as_declared", checks, {SPECIFICATION: description}, _judge)


def _judge(
    _platform: Platform, settings: OrchestrationSettings, checks: TopicChecks
) -> Iterator[CheckResult]:
    specs = [entry.spec for entry, _ in checks]
    drifted = drifts(settings, specs)
    topic_owners = owners(settings, specs, TopicsTable(settings)) if drifted else {}
    for entry, _ in checks:
        own = [drift for drift in drifted if drift.topic == entry.spec.name]
        yield CheckResult(
            passed=not own,
            says=_verdict(entry, own, topic_owners.get(entry.spec.name)),
            # A missing topic stops what follows; a setting that differs makes nothing wrong.
            severe=any(drift.what == "topic" for drift in own),
            metadata={
                "differences": len(own),
                **{drift.what: f"{drift.found}, not {drift.declared}" for drift in own},
            },
        )


def _verdict(entry: TopicEntry, drifted: Sequence[Drift], owner: Owner | None) -> str:
    if not drifted:
        return "as declared"
    if owner is Owner.FOREIGN:
        # Materializing does not alter it; the message says what can be done.
        return refusal(entry.spec, drifted, ())
    advice = f"materialize {entry.key.to_user_string()} or run `streamflow topics --apply`"
    if any(risk(drift) is not None for drift in drifted):
        advice = "`streamflow topics --apply` asks, and makes the change"
    if any(drift.is_surplus for drift in drifted):
        advice = "Kafka cannot remove partitions: raise the declaration"
    return f"{entry.spec.name}: {'; '.join(map(_describe, drifted))}. {advice}"


def _describe(drift: Drift) -> str:
    if drift.what == "topic":
        return "the topic did not exist"
    return f"{drift.what} was {drift.found}, {drift.declared} is declared"
