"""Settings of the schema registry that streams are decoded by."""

from pydantic import SecretStr

from streamflow.settings.fields import ServerUrl, UserPath, group
from streamflow.settings.platform import Settings, read_settings

_registry = group("Schema registry")


class RegistrySettings(Settings):
    schema_registry_url: ServerUrl | None = _registry(
        None,
        "Confluent's schema registry, or one with its API, as `https://host:8081`; "
        "see [formats](formats.md#a-schema-registry)",
    )
    schema_registry_username: str | None = _registry(None, "user, or API key")
    schema_registry_password: SecretStr | None = _registry(None, "password, or API secret")
    schema_registry_ca: UserPath | None = _registry(
        None, "file with CA certificates (PEM) of the registry", shown="public ones"
    )


def load_registry_settings() -> RegistrySettings:
    """Reads the settings; leaves the environment as it is."""
    return read_settings(RegistrySettings, {})
