# One image for all of StreamFlow's own services: the command says which one it is.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/venv
WORKDIR /app
COPY . .
# Broker and database are other containers here: without the extra that embeds them.
RUN PIP_CONSTRAINT=constraints.txt /opt/venv/bin/pip install --no-compile \
        '.[bridge,dagster,dashboard,ingest,lineage,oidc,parquet,registry,sketches,tracing]' \
    && /opt/venv/bin/pip uninstall --yes pip

FROM python:${PYTHON_VERSION}-slim
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    STREAMFLOW_STATE_DIR=/var/lib/streamflow \
    DAGSTER_DISABLE_TELEMETRY=1
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/streamflow --create-home streamflow \
    && install --directory --owner=streamflow --group=streamflow /app/state
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
USER 10001:10001
ENTRYPOINT []
CMD ["streamflow", "--help"]
