"""A schema registry with Confluent's API: fetching schemas by the ids that records carry.

A registry that does not answer is an outage: the worker waits, and no record becomes a dead letter. A
registry that answers that it has no such schema is a fault of the record.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

from streamflow.argument_types import TEXT, instance_of, keeps_faults, optional
from streamflow.errors import ConfigurationError, Unavailable
from streamflow.settings import load_registry_settings
from streamflow.settings.fields import without_credentials

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

SchemaId = int | UUID

_SECONDS: Final = 5.0  # to connect, and to wait for each part of an answer
_MAX_ID: Final = 2**31 - 1
_MOST_REFERENCES: Final = 1_000
_NOT_FOUND: Final = 404
_REFUSED: Final = (401, 403)


@keeps_faults
@dataclass(frozen=True)
class SchemaRegistry:
    """A schema registry other than that of the settings.

    Args:
        url: as ``https://host:8081``, or several with commas; without user and password.
        username: or API key.
        password: or API secret.
        ca: file with CA certificates (PEM).
    """

    url: Annotated[str, TEXT]
    username: Annotated[str | None, optional(TEXT)] = None
    password: Annotated[str | None, optional(TEXT)] = field(default=None, repr=False)
    ca: Annotated[Path | str | None, optional(instance_of(str, Path, what="a path"))] = None

    def __post_init__(self) -> None:
        for url in self.url.split(","):
            try:
                without_credentials(url.strip())
            except ValueError as error:
                raise ConfigurationError(f"SchemaRegistry: {error}") from None


@dataclass(frozen=True)
class RegisteredSchema:
    """A schema, and those that it refers to by name, each after what it needs itself."""

    kind: str  # AVRO, PROTOBUF or JSON
    text: str
    references: tuple[tuple[str, str], ...]


def registry_of_settings() -> SchemaRegistry:
    """Raises ConfigurationError if the settings name none."""
    settings = load_registry_settings()
    if settings.schema_registry_url is None:
        raise ConfigurationError(
            "no schema registry is known: set STREAMFLOW_SCHEMA_REGISTRY_URL, or declare the format with "
            "registry=SchemaRegistry(…)"
        )
    password = settings.schema_registry_password
    return SchemaRegistry(
        settings.schema_registry_url,
        settings.schema_registry_username,
        None if password is None else password.get_secret_value(),
        settings.schema_registry_ca,
    )


@lru_cache
def lookup_in(registry: SchemaRegistry) -> "Lookup":
    """The one connection of this process to a registry."""
    return Lookup(registry)


class Lookup:
    """Fetches schemas. Raises ConfigurationError where the registry cannot be asked at all."""

    def __init__(self, registry: SchemaRegistry) -> None:
        self._registry = registry
        self._answered = False  # whether it has shown to be a schema registry

    def fetch(self, schema_id: SchemaId) -> RegisteredSchema | None:
        """The schema of an id; None if the registry has none. Raises Unavailable."""
        # Java's registries count from 1, and answer what they cannot count to in odd ways.
        if isinstance(schema_id, int) and not 1 <= schema_id <= _MAX_ID:
            return None
        client = self.client
        try:
            found = (
                client.get_schema(schema_id)
                if isinstance(schema_id, int)
                else client.get_schema_by_guid(str(schema_id))
            )
            references = tuple(self._references(client, found, set()))
        except Exception as error:  # noqa: BLE001 (of the client, its HTTP library or TLS)
            if getattr(error, "http_status_code", None) != _NOT_FOUND:
                raise _unavailable(error) from None
            self._require_registry()
            return None
        self._answered = True
        return RegisteredSchema(found.schema_type or "AVRO", found.schema_str or "", references)

    def _references(
        self, client: "SchemaRegistryClient", schema: "Schema", known: set[str]
    ) -> Iterator[tuple[str, str]]:
        for reference in schema.references or ():
            name, subject, version = reference.name, reference.subject, reference.version
            if name in known or name is None or subject is None or version is None:
                continue
            known.add(name)
            if len(known) > _MOST_REFERENCES:
                raise ValueError("a schema with too many references")
            found = client.get_version(subject, version, True).schema
            yield from self._references(client, found, known)
            yield name, found.schema_str or ""

    def _require_registry(self) -> None:
        """Raises Unavailable where something else answers under this URL: its 404 says nothing."""
        if self._answered:
            return
        try:
            self.client.get_schema_types()
        except Exception as error:  # noqa: BLE001 (as in `fetch`)
            raise _unavailable(error) from None
        self._answered = True

    @cached_property
    def client(self) -> "SchemaRegistryClient":
        """It connects when it is asked."""
        from confluent_kafka.schema_registry import SchemaRegistryClient  # noqa: PLC0415 (an extra)

        try:
            return SchemaRegistryClient(self._configuration())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ConfigurationError(
                f"the schema registry cannot be asked ({reason}): check STREAMFLOW_SCHEMA_REGISTRY_CA"
            ) from None

    def _configuration(self) -> dict[str, Any]:
        registry = self._registry
        configuration: dict[str, Any] = {"url": registry.url, "timeout": _SECONDS, "max.retries": 0}
        if registry.username is not None:
            configuration["basic.auth.user.info"] = f"{registry.username}:{registry.password or ''}"
        if registry.ca is not None:
            configuration["ssl.ca.location"] = str(registry.ca)
        return configuration


def _unavailable(error: Exception) -> Unavailable:
    """Without the error's own text: it may quote an answer or an address."""
    status = getattr(error, "http_status_code", None)
    if status in _REFUSED:
        reason = (
            f"refuses the credentials, status {status}: check STREAMFLOW_SCHEMA_REGISTRY_USERNAME"
        )
    elif status is not None:
        reason = f"answers with status {status}: check STREAMFLOW_SCHEMA_REGISTRY_URL"
    else:
        reason = f"does not answer ({type(error).__name__}): check STREAMFLOW_SCHEMA_REGISTRY_URL"
    return Unavailable(f"the schema registry {reason}")
