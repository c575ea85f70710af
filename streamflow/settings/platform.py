"""The settings of every process: where things are, and how to connect to Kafka."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from streamflow.database_url import normalized
from streamflow.errors import ConfigurationError
from streamflow.origins import Hosts
from streamflow.pii_keys import PiiKeys
from streamflow.settings.environment import bypass_proxies, forget, forget_libpq, own_addresses
from streamflow.settings.fields import (
    HostNames,
    SaslMechanism,
    ServerUrl,
    Texts,
    TokenUrl,
    UserPath,
    group,
    variable,
)
from streamflow.settings.sources import (
    COORDINATES_FILE,
    CoordinatesSource,
    EnvironmentSource,
    FileSource,
    read_coordinates,
)

__all__ = ["COORDINATES_FILE"]

DEFAULT_PORTS = {
    "kafka": 9092,
    "controller": 9093,
    # Of the second and third node of `streamflow up --brokers 3`.
    "kafka-2": 9094,
    "controller-2": 9095,
    "kafka-3": 9096,
    "controller-3": 9097,
    "postgres": 5432,
    "dagster": 3000,
    "dagster-code": 4266,
    "bridge": 3001,
    "ingest": 3002,
    "dashboard": 8501,
    # Health and metrics endpoints of the supervised workers.
    "producer": 9100,
    "validator": 9101,
    "analytics": 9102,
    "loader": 9103,
    "bridge-health": 9104,
    "ingest-health": 9105,
}

GROUPS = {
    "validator": "notification-group",
    "analytics": "analytics-group",
    "loader": "db-group",
    "bridge": "websocket-bridge",
}

# The parts that are nodes of the embedded Kafka.
BROKERS = ("kafka", "kafka-2", "kafka-3")

_where = group("Where things are")
_streams = group("Streams and privacy")
_workers = group("Workers")
_logs = group("Logs")
_kafka = group("Kafka")
_dagster = group("Dagster")
_bridge = group("Bridge")
_ingest = group("HTTP ingest")
_breaker = group("Circuit breaker")
_lineage = group("Lineage and traces")


class Settings(BaseSettings):
    """What every process needs. A field's variable is its name in capitals after ``STREAMFLOW_``."""

    model_config = SettingsConfigDict(
        alias_generator=variable,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        # Compose and Kubernetes pass on unset variables as empty texts.
        env_ignore_empty=True,
        # A wrong value may be a secret.
        hide_input_in_errors=True,
    )

    kafka_bootstrap_servers: str | None = _where(
        None,
        "Kafka to use, as `host:port,…`; `streamflow up` starts none then",
        shown="embedded, `127.0.0.1:9092`",
        alias="KAFKA_BOOTSTRAP_SERVERS",
    )
    database_url: SecretStr | None = _where(
        None,
        "PostgreSQL to use, as `postgresql://user:password@host/database`; `streamflow up` starts "
        "none then",
        shown="embedded, port 5432",
        alias="DATABASE_URL",
    )
    state_dir: UserPath = _where(
        Path(".streamflow"), "folder for the broker's log, the database, logs and pid files"
    )
    host: str = _where("127.0.0.1", "address that all parts listen on")
    port_offset: int = _where(
        0, "added to every default port: several stacks on one machine", ge=0, le=50_000
    )
    brokers: int = _where(
        1, "embedded brokers: 1, or 3 to try failover, as `streamflow up --brokers 3` does"
    )
    prefix: str = _where(
        "", "prefix of every topic and group, to share a cluster", pattern=r"^[A-Za-z0-9._-]*$"
    )

    streams: Texts = _streams(
        ("streamflow.streams.user_events:USER_EVENTS",),
        "the streams, as `module:NAME`, comma-separated",
    )
    simulated_rate: float | None = _streams(
        None, "simulated events a second that `streamflow up` and `produce` send to each stream",
        shown="one every 3 s, in turn over the streams", gt=0,
    )  # fmt: skip
    repairs: Texts = _streams((), "modules with your own repairs for `dlq replay`, comma-separated")
    pii_key: SecretStr | None = _streams(
        None,
        "key for hashing addresses with HMAC-SHA-256, or several with ids, newest first, as "
        '`{"2026b": "new", "2026a": "old"}`: see [Rotating the key](privacy.md#rotating-the-key); without '
        "it they are hashed with plain SHA-256, which can be guessed",
    )

    signing_key: SecretStr | None = _streams(
        None,
        "key with which workers sign derived records, at least 16 characters, the same for all workers",
        shown="in the database",
        min_length=16,
    )

    stall_seconds: float = _workers(
        30.0, "seconds after which a worker with a hanging loop or call exits", ge=5
    )
    health_hosts: HostNames = _workers(
        (), "host names with a dot that serve `/health`, `/ready` and `/metrics`, comma-separated"
    )

    log_level: Literal["debug", "info", "warning", "error"] = _logs("info", "least severe event")
    log_format: Literal["console", "json"] = _logs("json", "`console` for the eye, or `json`")

    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = _kafka(
        "PLAINTEXT", "`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`"
    )
    kafka_sasl_mechanism: SaslMechanism = _kafka(
        "SCRAM-SHA-512", "`SCRAM-SHA-512`, `OAUTHBEARER` or another that librdkafka knows"
    )
    kafka_sasl_username: str | None = _kafka(None, "user, for SASL")
    kafka_sasl_password: SecretStr | None = _kafka(None, "password, for SASL")
    kafka_oauth_token_url: TokenUrl | None = _kafka(
        None,
        "for `OAUTHBEARER`: token endpoint of the identity provider (client credentials), by HTTPS unless "
        "it is on this machine",
    )
    kafka_oauth_client_id: str | None = _kafka(None, "client id, for `OAUTHBEARER`")
    kafka_oauth_client_secret: SecretStr | None = _kafka(None, "client secret, for `OAUTHBEARER`")
    kafka_oauth_scope: str | None = _kafka(None, "scope to ask for, for `OAUTHBEARER`")
    kafka_oauth_ca: UserPath | None = _kafka(
        None, "file with CA certificates (PEM) of the token endpoint", shown="the system's"
    )
    kafka_ssl_ca: UserPath | None = _kafka(None, "file with CA certificates (PEM)")
    kafka_ssl_certificate: UserPath | None = _kafka(
        None, "file with the client's certificate (PEM)"
    )
    kafka_ssl_key: UserPath | None = _kafka(None, "file with the client's private key (PEM)")
    kafka_group_protocol: Literal["consumer", "classic"] = _kafka(
        "consumer", "`classic` for brokers before 4.0"
    )
    kafka_replication_factor: int = _kafka(
        1, "replicas of each topic; 3 with three embedded brokers", ge=1
    )
    kafka_min_isr: int = _kafka(
        1, "minimum in-sync replicas for a write; 2 with three embedded brokers", ge=1
    )

    dagster_url: str | None = _dagster(
        None,
        "Dagster's webserver: workers report to it, the dashboard asks it",
        shown="set by `streamflow up` for its own parts",
        pattern=r"^https?://",
    )
    dagster_report_seconds: float = _dagster(
        30.0, "seconds between two reports about one asset, at least 15", ge=15
    )
    dagster_database_url: SecretStr | None = _dagster(
        None,
        "PostgreSQL for Dagster's runs and events",
        shown="a database or schema beside StreamFlow's",
    )
    dagster_retention_days: int = _dagster(
        14, "age in days at which Dagster's finished runs, events and ticks are deleted", ge=1
    )

    bridge_port: int | None = _bridge(
        None, "port on which it listens", shown="3001, shifted by the offset", ge=1, le=65_535
    )
    bridge_token: SecretStr | None = _bridge(
        None,
        "token that clients send as `auth.token` or `Authorization: Bearer …`; never in the query, "
        "which proxies log",
    )
    bridge_origins: Texts = _bridge(
        (),
        "pages that may connect, comma-separated; `*` for all. Programs other than browsers send no "
        "origin",
        shown="the bridge's own",
    )
    bridge_hosts: HostNames = _bridge(
        (), "host names with a dot under which clients reach it, some with a port, comma-separated"
    )
    bridge_queue: int = _bridge(50_000, "records that a client may lag behind", ge=1)
    bridge_history: int = _bridge(1_000, "records of each topic that are kept for `last`", ge=0)

    bridge_clients: int = _bridge(400, "clients at a time", ge=1)
    bridge_clients_per_address: int = _bridge(
        100,
        "clients of one address at a time; a proxy that sends no `X-Forwarded-For` is one",
        ge=1,
    )

    ingest_enabled: bool = _ingest(
        False, "whether `streamflow up` starts it, to take events by HTTP"
    )
    ingest_port: int | None = _ingest(
        None, "port on which it listens", shown="3002, shifted by the offset", ge=1, le=65_535
    )

    breaker_window: int = _breaker(
        10_000, "number of records that the ratio is computed over", ge=1
    )
    breaker_ratio: float = _breaker(
        0.9, "share of rejected records among them that opens the breaker", gt=0, le=1
    )
    breaker_consecutive: int = _breaker(
        5_000, "rejected records in a row that open the breaker", ge=1
    )
    breaker_keys: int = _breaker(
        10,
        "from how many keys without an accepted record on the release is blamed, instead of a producer",
        ge=1,
    )

    tracing: bool = _lineage(
        False,
        "`true` sends OpenTelemetry spans of batches to `OTEL_EXPORTER_OTLP_ENDPOINT`, by OTLP over HTTP",
        shown="`false`",
    )
    openlineage_url: ServerUrl | None = _lineage(
        None,
        "server that OpenLineage events are sent to, without user and password; none are sent without it",
        alias="OPENLINEAGE_URL",
    )
    openlineage_api_key: SecretStr | None = _lineage(
        None, "API key of that server, sent as a bearer token", alias="OPENLINEAGE_API_KEY"
    )
    openlineage_namespace: str = _lineage(
        "streamflow", "namespace of the jobs in these events", alias="OPENLINEAGE_NAMESPACE"
    )
    openlineage_seconds: float = _lineage(
        60.0, "seconds between two `RUNNING` events of a worker, at least 1", ge=1
    )

    @model_validator(mode="before")
    @classmethod
    def _replicate(cls, values: Any) -> Any:
        """Three embedded brokers hold three replicas of everything, and need two to continue."""
        if isinstance(values, dict) and str(values.get("STREAMFLOW_BROKERS")) == "3":
            return {
                "STREAMFLOW_KAFKA_REPLICATION_FACTOR": 3,
                "STREAMFLOW_KAFKA_MIN_ISR": 2,
            } | values
        return values

    @field_validator("database_url", "dagster_database_url")
    @classmethod
    def _readable_url(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(normalized(value.get_secret_value()))

    @field_validator("pii_key")
    @classmethod
    def _readable_keys(cls, value: SecretStr | None) -> SecretStr | None:
        PiiKeys.parse(None if value is None else value.get_secret_value())
        return value

    @field_validator("brokers")
    @classmethod
    def _one_or_three(cls, value: int) -> int:
        if value not in (1, len(BROKERS)):
            raise ValueError("is 1, or 3 to try failover: two cannot agree when one is gone")
        return value

    @model_validator(mode="after")
    def _replicas_cover_isr(self) -> Self:
        if self.kafka_min_isr > self.kafka_replication_factor:
            raise ValueError(
                "STREAMFLOW_KAFKA_MIN_ISR is larger than STREAMFLOW_KAFKA_REPLICATION_FACTOR: "
                "no write could ever be acknowledged"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        return (
            init_settings,
            EnvironmentSource(env_settings),
            FileSource(settings_cls, all_fields()),
            CoordinatesSource(settings_cls),
        )

    def port(self, name: str) -> int:
        """The port of a part, shifted by the offset of this stack."""
        return DEFAULT_PORTS[name] + self.port_offset

    @property
    def bridge(self) -> int:
        """The port of the Socket.IO bridge."""
        return self.bridge_port or self.port("bridge")

    @property
    def ingest(self) -> int:
        """The port that takes events by HTTP."""
        return self.ingest_port or self.port("ingest")

    @property
    def probed_hosts(self) -> Hosts:
        """Under which names probes and Prometheus reach a worker: pods and containers have addresses, or
        names without a dot."""
        return Hosts.of(
            "this worker",
            "STREAMFLOW_HEALTH_HOSTS",
            own=(self.host,),
            listed=self.health_hosts,
            dotless=True,
        )

    def group(self, worker: str) -> str:
        """The consumer group of a worker."""
        return self.prefix + GROUPS[worker]

    @property
    def bootstrap(self) -> str:
        """Kafka's bootstrap servers: as configured, else those of the embedded brokers."""
        return self.kafka_bootstrap_servers or ",".join(
            f"{self.host}:{self.port(name)}" for name in BROKERS[: self.brokers]
        )

    @property
    def database(self) -> str:
        """The database's URL, with its password: never log it. Raises ConfigurationError if none is
        configured and no embedded stack is running here."""
        if self.database_url is None:
            raise ConfigurationError(
                "no database is known here: start the stack with `streamflow up` in this folder, "
                "or set DATABASE_URL"
            )
        return self.database_url.get_secret_value()


def all_fields() -> dict[str, FieldInfo]:
    """Every setting, by its variable: ``streamflow.toml`` is one file for all processes."""
    kinds = [Settings]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return {str(field.alias): field for kind in kinds for field in kind.model_fields.values()}


SettingsKind = TypeVar("SettingsKind", bound=Settings)


def load_settings(**overrides: Any) -> Settings:
    """Reads the settings. Raises ConfigurationError, with the name of the variable, for a value that
    cannot be used."""
    return read_settings(Settings, overrides)


def load_process_settings(**overrides: Any) -> Settings:
    """As `load_settings`, for a process of ours: removes from its environment what is not meant for the
    servers that the settings name."""
    return load_settings_of(Settings, **overrides)


def load_settings_of(kind: type[SettingsKind], **overrides: Any) -> SettingsKind:
    """As `load_process_settings`, of a part with settings of its own."""
    settings = read_settings(kind, overrides)
    forget(own_addresses(settings.state_dir))
    bypass_proxies(settings.host)
    if database_is_embedded(settings):
        forget_libpq()
    return settings


def read_settings(kind: type[SettingsKind], overrides: Mapping[str, Any]) -> SettingsKind:
    try:
        settings = kind(**overrides)
        own = own_addresses(settings.state_dir)
        if own:
            token = EnvironmentSource.ignored.set(own)
            try:
                settings = kind(**overrides)
            finally:
                EnvironmentSource.ignored.reset(token)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'settings'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(f"settings are wrong: {faults}") from None
    return settings


def database_is_embedded(settings: Settings) -> bool:
    """Whether the user has named no database: libpq's variables would be meant for that one."""
    if settings.database_url is None:
        return True
    known = read_coordinates(settings.state_dir)
    return bool(known.get("database_embedded")) and known["database_url"] == settings.database
