"""Settings: read once from the environment and ``streamflow.toml``, then passed on, frozen.

Order of precedence: environment, ``streamflow.toml`` in the working directory, the coordinates
that a running ``streamflow up`` left in the state directory, defaults.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from streamflow.database_url import normalized
from streamflow.errors import ConfigurationError
from streamflow.origins import Hosts

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
    "dashboard": 8501,
    # Health and metrics endpoints of the supervised workers.
    "producer": 9100,
    "validator": 9101,
    "analytics": 9102,
    "loader": 9103,
    "bridge-health": 9104,
}

GROUPS = {
    "analytics": "analytics-group",
    "validator": "notification-group",
    "loader": "db-group",
    "bridge": "websocket-bridge",
}

# The parts that are nodes of the embedded Kafka.
BROKERS = ("kafka", "kafka-2", "kafka-3")

COORDINATES_FILE = "stack.json"


def _split_names(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _require_names(value: tuple[str, ...]) -> tuple[str, ...]:
    if any("/" in name or "*" in name for name in value):
        raise ValueError("holds names as web.example.com or web.example.com:8443, comma-separated")
    return value


# Under which a server is reached: comma-separated, some with a port.
HostNames = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_split_names), AfterValidator(_require_names)
]


class CoordinatesSource(PydanticBaseSettingsSource):
    """Where the running stack of this folder listens, as ``streamflow up`` wrote it down."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Not asked: `__call__` gives all fields at once."""
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """The fields that the file tells."""
        state_dir = Path(self.current_state.get("STREAMFLOW_STATE_DIR") or ".streamflow")
        try:
            found = json.loads((state_dir / COORDINATES_FILE).read_text())
        except (OSError, ValueError):
            return {}
        # A port offset chosen now means another stack than the one that left the file.
        chosen = self.current_state.get("STREAMFLOW_PORT_OFFSET", found.get("port_offset"))
        if str(chosen) != str(found.get("port_offset")):
            return {}
        values = {
            "KAFKA_BOOTSTRAP_SERVERS": found.get("kafka_bootstrap_servers"),
            "DATABASE_URL": found.get("database_url"),
            "STREAMFLOW_PORT_OFFSET": found.get("port_offset"),
            "STREAMFLOW_BROKERS": found.get("brokers"),
        }
        return {name: value for name, value in values.items() if value is not None}


class Settings(BaseSettings):
    """Everything that can be configured. Names of environment variables are the aliases below."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        toml_file="streamflow.toml",
        populate_by_name=True,
        # Compose and Kubernetes pass on what nobody has set as an empty text.
        env_ignore_empty=True,
        # A wrong value may be a secret.
        hide_input_in_errors=True,
    )

    kafka_bootstrap_servers: str | None = Field(None, alias="KAFKA_BOOTSTRAP_SERVERS")
    database_url: SecretStr | None = Field(None, alias="DATABASE_URL")
    pii_key: SecretStr | None = Field(None, alias="STREAMFLOW_PII_KEY")
    # What workers sign their records with; in the database by default.
    signing_key: SecretStr | None = Field(None, min_length=16, alias="STREAMFLOW_SIGNING_KEY")
    state_dir: Path = Field(Path(".streamflow"), alias="STREAMFLOW_STATE_DIR")
    port_offset: int = Field(0, ge=0, le=50_000, alias="STREAMFLOW_PORT_OFFSET")
    brokers: int = Field(1, alias="STREAMFLOW_BROKERS")
    host: str = Field("127.0.0.1", alias="STREAMFLOW_HOST")
    prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]*$", alias="STREAMFLOW_PREFIX")
    streams: Annotated[tuple[str, ...], NoDecode] = Field(
        ("streamflow.streams.user_events:USER_EVENTS",),
        validation_alias=AliasChoices("STREAMFLOW_STREAMS", "streams"),
    )
    repairs: Annotated[tuple[str, ...], NoDecode] = Field(
        (), validation_alias=AliasChoices("STREAMFLOW_REPAIRS", "repairs")
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", alias="STREAMFLOW_LOG_LEVEL"
    )
    log_format: Literal["console", "json"] = Field("json", alias="STREAMFLOW_LOG_FORMAT")

    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", alias="STREAMFLOW_KAFKA_SECURITY_PROTOCOL"
    )
    kafka_sasl_mechanism: str = Field("SCRAM-SHA-512", alias="STREAMFLOW_KAFKA_SASL_MECHANISM")
    kafka_sasl_username: str | None = Field(None, alias="STREAMFLOW_KAFKA_SASL_USERNAME")
    kafka_sasl_password: SecretStr | None = Field(None, alias="STREAMFLOW_KAFKA_SASL_PASSWORD")
    kafka_ssl_ca: Path | None = Field(None, alias="STREAMFLOW_KAFKA_SSL_CA")
    kafka_ssl_certificate: Path | None = Field(None, alias="STREAMFLOW_KAFKA_SSL_CERTIFICATE")
    kafka_ssl_key: Path | None = Field(None, alias="STREAMFLOW_KAFKA_SSL_KEY")
    kafka_group_protocol: Literal["consumer", "classic"] = Field(
        "consumer", alias="STREAMFLOW_KAFKA_GROUP_PROTOCOL"
    )
    kafka_replication_factor: int = Field(1, ge=1, alias="STREAMFLOW_KAFKA_REPLICATION_FACTOR")
    kafka_min_isr: int = Field(1, ge=1, alias="STREAMFLOW_KAFKA_MIN_ISR")

    # Where workers report what they do; `streamflow up` tells it to its own.
    dagster_url: str | None = Field(None, pattern=r"^https?://", alias="STREAMFLOW_DAGSTER_URL")
    dagster_report_seconds: float = Field(30.0, ge=15, alias="STREAMFLOW_DAGSTER_REPORT_SECONDS")
    # Where Dagster keeps its runs and events; derived from the stack's database by default.
    dagster_database_url: SecretStr | None = Field(None, alias="STREAMFLOW_DAGSTER_DATABASE_URL")
    bridge_port: int | None = Field(None, ge=1, le=65_535, alias="STREAMFLOW_BRIDGE_PORT")
    bridge_token: SecretStr | None = Field(None, alias="STREAMFLOW_BRIDGE_TOKEN")
    bridge_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), validation_alias=AliasChoices("STREAMFLOW_BRIDGE_ORIGINS", "bridge_origins")
    )
    bridge_queue: int = Field(50_000, ge=1, alias="STREAMFLOW_BRIDGE_QUEUE")
    bridge_history: int = Field(1_000, ge=0, alias="STREAMFLOW_BRIDGE_HISTORY")

    # Names under which health ports and the bridge's /health, /ready and /metrics are reached.
    health_hosts: HostNames = Field(
        (), validation_alias=AliasChoices("STREAMFLOW_HEALTH_HOSTS", "health_hosts")
    )

    # A loop or a call of a worker that takes longer is hung, and its process ends.
    stall_seconds: float = Field(30.0, ge=5, alias="STREAMFLOW_STALL_SECONDS")

    breaker_window: int = Field(10_000, ge=1, alias="STREAMFLOW_BREAKER_WINDOW")
    breaker_ratio: float = Field(0.9, gt=0, le=1, alias="STREAMFLOW_BREAKER_RATIO")
    breaker_consecutive: int = Field(5_000, ge=1, alias="STREAMFLOW_BREAKER_CONSECUTIVE")

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: Any) -> Any:
        for name in (
            "STREAMFLOW_STREAMS",
            "streams",
            "STREAMFLOW_REPAIRS",
            "repairs",
            "STREAMFLOW_BRIDGE_ORIGINS",
            "bridge_origins",
        ):
            if isinstance(values, dict) and isinstance(values.get(name), str):
                parts = [part.strip() for part in values[name].split(",")]
                values = {**values, name: tuple(part for part in parts if part)}
        return values

    @model_validator(mode="before")
    @classmethod
    def _replicate(cls, values: Any) -> Any:
        """Three embedded brokers hold three replicas of everything, and need two to go on."""
        if isinstance(values, dict) and str(values.get("STREAMFLOW_BROKERS")) == "3":
            replicated = {
                "STREAMFLOW_KAFKA_REPLICATION_FACTOR": 3,
                "STREAMFLOW_KAFKA_MIN_ISR": 2,
            }
            return replicated | values
        return values

    @field_validator("database_url", "dagster_database_url")
    @classmethod
    def _readable_url(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(normalized(value.get_secret_value()))

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
        """The order of precedence."""
        del dotenv_settings, file_secret_settings
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(settings_cls),
            CoordinatesSource(settings_cls),
        )

    def port(self, name: str) -> int:
        """The port of a part, shifted by the offset of this stack."""
        return DEFAULT_PORTS[name] + self.port_offset

    @property
    def bridge(self) -> int:
        """The port on which the Socket.IO bridge listens."""
        return self.bridge_port or self.port("bridge")

    @property
    def probed_hosts(self) -> Hosts:
        """Under which names probes and Prometheus reach a worker. Pods and containers are known by
        their address, or by a name without a dot."""
        hosts = Hosts.of(
            "this worker", "STREAMFLOW_HEALTH_HOSTS", own=(self.host,), listed=self.health_hosts
        )
        return replace(hosts, dotless=True)

    def group(self, worker: str) -> str:
        """The consumer group of a worker."""
        return self.prefix + GROUPS[worker]

    @property
    def bootstrap(self) -> str:
        """Kafka's bootstrap servers: the given ones, else where the embedded broker listens."""
        return self.kafka_bootstrap_servers or ",".join(
            f"{self.host}:{self.port(name)}" for name in BROKERS[: self.brokers]
        )

    @property
    def database(self) -> str:
        """The database's URL, with its password: never log it.

        Raises:
            ConfigurationError: no database is configured and no embedded stack is running here.
        """
        if self.database_url is None:
            raise ConfigurationError(
                "no database is known here: start the stack with `streamflow up` in this folder, "
                "or set DATABASE_URL"
            )
        return self.database_url.get_secret_value()


SettingsKind = TypeVar("SettingsKind", bound=Settings)


def load_settings(**overrides: Any) -> Settings:
    """Reads the settings.

    Raises:
        ConfigurationError: a variable has a value that cannot be used; names it, not its value.
    """
    return load_settings_of(Settings, **overrides)


def load_settings_of(kind: type[SettingsKind], **overrides: Any) -> SettingsKind:
    """Reads the settings of a part that has some of its own. Raises as `load_settings`."""
    try:
        return kind(**overrides)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'settings'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(f"settings are wrong: {faults}") from None
