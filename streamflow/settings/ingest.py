"""Settings of the worker that takes events by HTTP."""

from functools import partial
from typing import Final, Self

from pydantic import SecretStr, model_validator

from streamflow.settings.fields import HostNames, group
from streamflow.settings.platform import Settings, load_settings_of

_ingest = group("HTTP ingest")


class IngestSettings(Settings):
    ingest_token: SecretStr | None = _ingest(
        None, "token that clients send as `Authorization: Bearer …`"
    )
    ingest_hosts: HostNames = _ingest(
        (), "host names with a dot under which clients reach it, some with a port, comma-separated"
    )
    ingest_max_bytes: int = _ingest(
        4_194_304, "bytes of a request's body, compressed or not", ge=1_024, le=67_108_864
    )
    ingest_max_events: int = _ingest(10_000, "events of a request", ge=1, le=100_000)
    ingest_queue_bytes: int = _ingest(
        67_108_864, "bytes of requests that wait for Kafka; beyond them clients get 429", ge=1_024
    )
    ingest_timeout: float = _ingest(
        30.0, "seconds that a request waits for Kafka; after them it gets 503", gt=0
    )
    ingest_key_hours: float = _ingest(
        24.0, "hours for which an `Idempotency-Key` is remembered, at least", gt=0
    )

    @model_validator(mode="after")
    def _queue_holds_a_request(self) -> Self:
        if self.ingest_queue_bytes < self.ingest_max_bytes:
            raise ValueError(
                "STREAMFLOW_INGEST_QUEUE_BYTES is smaller than STREAMFLOW_INGEST_MAX_BYTES: the largest "
                "request would never be accepted"
            )
        return self


load_ingest_settings: Final = partial(load_settings_of, IngestSettings)
