"""Makes ``grafana-dashboard.json``, beside this file. Run it after a change."""

from pathlib import Path
from string import ascii_uppercase
from typing import Final, NamedTuple

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models

OUT: Final = Path(__file__).with_name("grafana-dashboard.json")
_SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${source}")
_WORKERS: Final = 'worker=~"$worker"'
_WIDTH: Final = 24  # columns of Grafana's grid
_HEIGHT: Final = 8  # rows of a graph
_LOW: Final = 4  # rows of a figure


class Query(NamedTuple):
    expr: str
    legend: str


class Graph(NamedTuple):
    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]


FIGURES: Final = (
    Graph("Workers ready", "Processes whose /ready says yes.", "short",
          (Query(f"sum(streamflow_ready{{{_WORKERS}}})", ""),)),
    Graph("Not answering", "Processes that Prometheus cannot scrape.", "short",
          (Query(f'sum(up{{job="streamflow",{_WORKERS}}} == bool 0)', ""),)),
    Graph("Furthest behind", "The largest lag of a worker, in offsets.", "short",
          (Query(f"max(sum by (worker) (streamflow_lag_offsets{{{_WORKERS}}}))", ""),)),
    Graph("Rejected in an hour", "Records that the validator rejected: its dead letters.", "short",
          (Query('sum(increase(streamflow_records_rejected_total{worker="validator"}[1h]))', ""),)),
    Graph("Lost", "Offsets that workers could not read any more, since they started.", "short",
          (Query(f"sum(streamflow_records_lost_total{{{_WORKERS}}}) or vector(0)", ""),)),
    Graph("Clients of the bridge", "Socket.IO clients that are connected.", "short",
          (Query("sum(streamflow_bridge_clients)", ""),)),
)  # fmt: skip

GRAPHS: Final = (
    Graph("Records read", "Of all topics, by worker.", "cps",
          (Query(f"sum by (worker) (rate(streamflow_records_in_total{{{_WORKERS}}}[$__rate_interval]))",
                 "{{worker}}"),)),
    Graph("Records and rows written", "Records produced, rows loaded, events sent, by where to.", "cps",
          (Query(f"sum by (to) (rate(streamflow_records_out_total{{{_WORKERS}}}[$__rate_interval]))",
                 "{{to}}"),)),
    Graph("Lag", "Offsets still to be read, as of the last fetch.", "short",
          (Query(f"sum by (worker, topic) (streamflow_lag_offsets{{{_WORKERS}}})",
                 "{{worker}} {{topic}}"),)),
    Graph("Rejected by code", "Records of the validator that became dead letters.", "cps",
          (Query('sum by (code) (rate(streamflow_records_rejected_total{worker="validator"}'
                 "[$__rate_interval])) > 0", "{{code}}"),)),
    Graph("From the broker until durable, p99",
          "From the broker's time stamp of a batch's last record until the batch was durable.", "s",
          (Query("histogram_quantile(0.99, sum by (worker, le) "
                 f"(rate(streamflow_end_to_end_seconds_bucket{{{_WORKERS}}}[$__rate_interval])))",
                 "{{worker}}"),)),
    Graph("A batch, p99", "From the batch in hand until it was durable.", "s",
          (Query("histogram_quantile(0.99, sum by (worker, le) "
                 f"(rate(streamflow_batch_seconds_bucket{{{_WORKERS}}}[$__rate_interval])))",
                 "{{worker}}"),)),
    Graph("Duplicates and lost records",
          "Recognised duplicates, and offsets that could not be read any more, since the workers started.",
          "short",
          (Query(f"sum(streamflow_duplicates_total{{{_WORKERS}}})", "duplicates"),
           Query(f"sum by (topic) (streamflow_records_lost_total{{{_WORKERS}}})", "lost {{topic}}"))),
    Graph("Joined its group",
          "Sessions that a worker began: each after the first is a restart or an outage.", "short",
          (Query(f"sum by (worker) (increase(streamflow_sessions_total{{{_WORKERS}}}[$__rate_interval]))",
                 "{{worker}}"),)),
    Graph("Processor time", "Cores that a worker keeps busy.", "short",
          (Query(f"sum by (worker) (rate(process_cpu_seconds_total{{{_WORKERS}}}[$__rate_interval]))",
                 "{{worker}}"),)),
    Graph("Memory", "Resident memory of the workers.", "bytes",
          (Query(f"sum by (worker) (process_resident_memory_bytes{{{_WORKERS}}})", "{{worker}}"),)),
    Graph("Events that clients missed", "Events that slow Socket.IO clients missed.", "cps",
          (Query("sum by (instance) (rate(streamflow_bridge_missed_total[$__rate_interval]))",
                 "{{instance}}"),)),
)  # fmt: skip
LATENCY: Final = Query(
    f"sum by (le) (rate(streamflow_end_to_end_seconds_bucket{{{_WORKERS}}}[$__rate_interval]))",
    "{{le}}",
)


def _target(query: Query, ref_id: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().datasource(_SOURCE).ref_id(ref_id)
    return target.expr(query.expr).legend_format(query.legend)


def _figure(graph: Graph) -> stat.Panel:
    panel = (
        stat.Panel()
        .title(graph.title)
        .description(graph.description)
        .datasource(_SOURCE)
        .unit(graph.unit)
        .height(_LOW)
        .span(_WIDTH // len(FIGURES))
        .color_mode(options.BigValueColorMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    for ref_id, query in zip(ascii_uppercase, graph.queries, strict=False):
        panel = panel.with_target(_target(query, ref_id))
    return panel


def _graph(graph: Graph) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(graph.title)
        .description(graph.description)
        .datasource(_SOURCE)
        .unit(graph.unit)
        .min(0)
        .height(_HEIGHT)
        .span(_WIDTH // 2)
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    for ref_id, query in zip(ascii_uppercase, graph.queries, strict=False):
        panel = panel.with_target(_target(query, ref_id))
    return panel


def _heatmap() -> heatmap.Panel:
    return (
        heatmap.Panel()
        .title("From the broker until durable")
        .description("Batches by how long after the broker's time stamp they were durable.")
        .datasource(_SOURCE)
        .height(_HEIGHT)
        .span(_WIDTH // 2)
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .with_target(_target(LATENCY, "A").format(prometheus_models.PromQueryFormat.HEATMAP))
    )


def made() -> str:
    """The dashboard, as Grafana imports it."""
    builder = (
        dashboard.Dashboard("StreamFlow")
        .uid("streamflow")
        .description(
            "Rates, lag, latency and losses of StreamFlow's workers; see docs/how-to/monitor.md."
        )
        .tags(["streamflow", "kafka"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus")
        )
        .with_variable(
            dashboard.QueryVariable("worker")
            .label("Worker")
            .datasource(_SOURCE)
            .query("label_values(streamflow_ready, worker)")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    )
    for figure in FIGURES:
        builder = builder.with_panel(_figure(figure))
    builder = builder.with_panel(_heatmap())
    for graph in GRAPHS:
        builder = builder.with_panel(_graph(graph))
    return JSONEncoder(sort_keys=True, indent=2).encode(builder.build()) + "\n"


if __name__ == "__main__":
    OUT.write_text(made())
