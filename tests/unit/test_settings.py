"""Settings: precedence, secrets, and how Kafka is spoken to."""

import contextlib
import json
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr, ValidationError

from streamflow.errors import ConfigurationError
from streamflow.kafka.clients import common_config
from streamflow.origins import Hosts
from streamflow.settings import (
    DashboardSettings,
    IngestSettings,
    OrchestrationSettings,
    RegistrySettings,
    Settings,
    load_dashboard_settings,
    load_orchestration_settings,
    load_settings,
    reference,
)
from streamflow.settings.platform import all_fields


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_environment_before_file_before_running_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / ".streamflow"
    state.mkdir()
    found = {"kafka_bootstrap_servers": "stack:1", "database_url": "postgresql://stack/x"}
    (state / "stack.json").write_text(json.dumps(found | {"port_offset": 7}))
    assert (load_settings().bootstrap, load_settings().port("kafka")) == ("stack:1", 9099)

    (tmp_path / "streamflow.toml").write_text('KAFKA_BOOTSTRAP_SERVERS = "file:1"\n')
    assert load_settings().bootstrap == "file:1"

    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "environment:1")
    assert load_settings().bootstrap == "environment:1"
    assert load_settings().database == "postgresql://stack/x"

    # Another offset means another stack.
    monkeypatch.setenv("STREAMFLOW_PORT_OFFSET", "8")
    with pytest.raises(ConfigurationError, match="streamflow up"):
        _ = load_settings().database


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hidden-1@h/d")
    monkeypatch.setenv("STREAMFLOW_PII_KEY", "hidden-2")
    monkeypatch.setenv("STREAMFLOW_KAFKA_SASL_PASSWORD", "hidden-3")
    assert "hidden" not in repr(load_settings())
    assert "hidden" not in str(load_settings().model_dump())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STREAMFLOW_PORT_OFFSET", "many"),
        ("STREAMFLOW_PORT_OFFSET", "-1"),
        ("STREAMFLOW_PREFIX", "no spaces"),
        ("STREAMFLOW_BREAKER_RATIO", "1.5"),
        ("STREAMFLOW_LOG_LEVEL", "shout"),
        ("STREAMFLOW_KAFKA_SECURITY_PROTOCOL", "PIGEON"),
    ],
)
def test_a_wrong_value_is_named_and_not_quoted(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name) as caught:
        load_settings()
    assert value not in str(caught.value)


def test_more_replicas_in_sync_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_KAFKA_MIN_ISR", "2")
    with pytest.raises(ConfigurationError, match="no write could ever be acknowledged"):
        load_settings()


def test_tls_and_sasl_reach_librdkafka(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SECURITY_PROTOCOL": "SASL_SSL",
        "SASL_USERNAME": "worker",
        "SASL_PASSWORD": "secret",
        "SSL_CA": "/etc/ca.pem",
        "SSL_CERTIFICATE": "/etc/client.pem",
        "SSL_KEY": "/etc/client.key",
    }.items():
        monkeypatch.setenv(f"STREAMFLOW_KAFKA_{name}", value)
    config = common_config(load_settings())
    assert config["security.protocol"] == "SASL_SSL"
    assert config["sasl.mechanism"] == "SCRAM-SHA-512"
    assert (config["sasl.username"], config["sasl.password"]) == ("worker", "secret")
    assert config["ssl.ca.location"] == "/etc/ca.pem"
    assert config["ssl.certificate.location"] == "/etc/client.pem"
    assert config["ssl.key.location"] == "/etc/client.key"


def test_sasl_without_a_password_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    with pytest.raises(ConfigurationError, match="STREAMFLOW_KAFKA_SASL_PASSWORD"):
        common_config(load_settings())


OAUTH = {
    "STREAMFLOW_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "STREAMFLOW_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
    "STREAMFLOW_KAFKA_OAUTH_TOKEN_URL": "https://id.example/token",
    "STREAMFLOW_KAFKA_OAUTH_CLIENT_ID": "worker",
    "STREAMFLOW_KAFKA_OAUTH_CLIENT_SECRET": "planted",
}


def test_oauth_reaches_librdkafka(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    config = common_config(
        Settings(**OAUTH, STREAMFLOW_KAFKA_OAUTH_SCOPE="kafka", STREAMFLOW_KAFKA_OAUTH_CA=ca)
    )
    given = {name: value for name, value in config.items() if name.startswith(("sasl", "https"))}
    assert given == {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": "https://id.example/token",
        "sasl.oauthbearer.client.id": "worker",
        "sasl.oauthbearer.client.secret": "planted",
        "sasl.oauthbearer.scope": "kafka",
        "https.ca.location": str(ca),
    }
    # It knows all of them; a password is not asked for.
    AdminClient(common_config(Settings(**OAUTH)) | {"log_level": 0})
    assert "planted" not in repr(Settings(**OAUTH))
    in_lower_case = OAUTH | {"STREAMFLOW_KAFKA_SASL_MECHANISM": "oauthbearer"}
    assert common_config(Settings(**in_lower_case)) == common_config(Settings(**OAUTH))


@pytest.mark.parametrize("name", ["TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET"])
def test_oauth_says_what_is_missing(name: str) -> None:
    variable = f"STREAMFLOW_KAFKA_OAUTH_{name}"
    with pytest.raises(ConfigurationError, match=variable):
        common_config(Settings(**{key: OAUTH[key] for key in OAUTH if key != variable}))


@pytest.mark.parametrize(
    ("url", "accepted"),
    [
        ("http://id.example/token", False),
        ("http://localhost.example/token", False),
        ("http://127.0.0.1@id.example/token", False),
        ("http://127.0.0.1:80@id.example/token", False),
        ("id.example", False),
        ("https://ann:secret@id.example/token", False),
        ("https://id.example:8443/token?a=b", True),
        ("http://127.0.0.1:8080/token", True),
        ("http://localhost/token", True),
    ],
)
def test_a_client_secret_is_sent_in_clear_to_this_machine_only(
    url: str, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (OAUTH | {"STREAMFLOW_KAFKA_OAUTH_TOKEN_URL": url}).items():
        monkeypatch.setenv(name, value)
    expected = (
        contextlib.nullcontext()
        if accepted
        else pytest.raises(
            ConfigurationError, match="OAUTH_TOKEN_URL: write https://HOST/PATH, without"
        )
    )
    with expected:
        load_settings()


def test_a_stream_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from streamflow.registry import load_streams

    for path, why in {
        "nowhere:STREAM": "there is no module nowhere",
        "streamflow.streams.user_events:NOTHING": "has no NOTHING: its streams are USER_EVENTS",
        "streamflow.streams.user_events:UserEvent": "is not a Stream",
        ",": "no stream is configured",
    }.items():
        monkeypatch.setenv("STREAMFLOW_STREAMS", path)
        with pytest.raises(ConfigurationError, match=why):
            load_streams(load_settings())


def test_three_brokers_replicate_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    one = load_settings()
    assert (one.kafka_replication_factor, one.kafka_min_isr) == (1, 1)
    monkeypatch.setenv("STREAMFLOW_BROKERS", "3")
    three = load_settings()
    assert (three.kafka_replication_factor, three.kafka_min_isr) == (3, 2)
    assert three.bootstrap == "127.0.0.1:9092,127.0.0.1:9094,127.0.0.1:9096"
    monkeypatch.setenv("STREAMFLOW_KAFKA_MIN_ISR", "1")
    assert load_settings().kafka_min_isr == 1


def test_a_running_stack_tells_how_many_brokers_it_has(tmp_path: Path) -> None:
    state = tmp_path / ".streamflow"
    state.mkdir()
    coordinates = {"kafka_bootstrap_servers": "b:1", "port_offset": 0, "brokers": 3}
    (state / "stack.json").write_text(json.dumps(coordinates))
    found = load_settings()
    assert (found.bootstrap, found.brokers, found.kafka_min_isr) == ("b:1", 3, 2)


@pytest.mark.parametrize("brokers", ["0", "2", "5"])
def test_other_numbers_of_brokers_are_refused(
    brokers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMFLOW_BROKERS", brokers)
    with pytest.raises(ConfigurationError, match=r"STREAMFLOW_BROKERS.*is 1, or 3"):
        load_settings()


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STREAMFLOW_PII_KEY", "STREAMFLOW_BRIDGE_TOKEN", "STREAMFLOW_BRIDGE_ORIGINS"):
        monkeypatch.setenv(name, "")
    found = load_settings()
    assert (found.pii_key, found.bridge_token, found.bridge_origins) == (None, None, ())


def test_origins_are_a_list_and_the_port_is_shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_BRIDGE_ORIGINS", "https://a.example, https://b.example")
    monkeypatch.setenv("STREAMFLOW_PORT_OFFSET", "100")
    found = load_settings()
    assert found.bridge_origins == ("https://a.example", "https://b.example")
    assert found.bridge == 3101
    monkeypatch.setenv("STREAMFLOW_BRIDGE_PORT", "4001")
    assert load_settings().bridge == 4001


def test_a_secret_is_not_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_BRIDGE_TOKEN", "very secret")
    monkeypatch.setenv("STREAMFLOW_BRIDGE_QUEUE", "none")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "STREAMFLOW_BRIDGE_QUEUE" in str(caught.value)
    assert "very secret" not in str(caught.value)


def test_a_changed_copy_has_its_own_addresses() -> None:
    first = load_settings(KAFKA_BOOTSTRAP_SERVERS="one:1", DATABASE_URL="postgresql://one/x")
    assert (first.bootstrap, first.database) == ("one:1", "postgresql://one/x")
    second = first.model_copy(
        update={
            "kafka_bootstrap_servers": "two:2",
            "database_url": SecretStr("postgresql://two/x"),
        }
    )
    assert (second.bootstrap, second.database) == ("two:2", "postgresql://two/x")


def test_dagster_s_hosts_are_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_DAGSTER_HOSTS", "dagster.example.com, 10.0.0.5:3000,")
    monkeypatch.setenv("STREAMFLOW_DAGSTER_URL", "http://Dagster-Webserver:3000")
    monkeypatch.setenv("STREAMFLOW_HOST", "0.0.0.0")  # noqa: S104 (as in a container)
    found = load_orchestration_settings()
    assert found.dagster_hosts == ("dagster.example.com", "10.0.0.5:3000")
    hosts = found.webserver_hosts
    assert hosts.serve("dagster-webserver:3000")
    assert hosts.serve("dagster.example.com")
    assert not hosts.serve("dashboard:3000")
    for wrong in ("https://dagster.example.com", "*"):
        monkeypatch.setenv("STREAMFLOW_DAGSTER_HOSTS", wrong)
        with pytest.raises(ConfigurationError, match="STREAMFLOW_DAGSTER_HOSTS"):
            load_orchestration_settings()


@pytest.mark.parametrize(
    ("variable", "hosts"),
    [
        ("STREAMFLOW_DASHBOARD_HOSTS", lambda: load_dashboard_settings().hosts),
        ("STREAMFLOW_HEALTH_HOSTS", lambda: load_settings().probed_hosts),
    ],
)
def test_hosts_are_names(
    variable: str, hosts: Callable[[], Hosts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMFLOW_HOST", "Node1.example.com")
    monkeypatch.setenv(variable, "a.example.com, b.example.com:8443,")
    served = hosts()
    assert served.setting == variable
    names = ("node1.example.com:1", "a.example.com", "a.example.com:1", "b.example.com:8443")
    assert all(map(served.serve, names))
    assert not served.serve("b.example.com:1")
    monkeypatch.setenv(variable, "")
    assert not hosts().serve("a.example.com")
    monkeypatch.setenv(variable, "https://a.example.com")
    with pytest.raises(ConfigurationError, match=variable):
        hosts()


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://u:s3cret@h/d", "postgresql://u:s3cret@h/d"),
        ("postgresql+psycopg://u:s3cret@h:5433/d", "postgresql://u:s3cret@h:5433/d"),
        ("postgresql+psycopg2://u:s3cret@h/d?sslmode=require", None),
        (" postgresql://u:s3cret@h/d\n", "postgresql://u:s3cret@h/d"),
        ("postgresql://u:a#b?c@h/d", "postgresql://u:a%23b%3Fc@h/d"),
        ("postgresql://u:a%40b%2Fc%25@[::1]:5432,h2:5433/d", None),
        ("postgresql:///d?host=/run/postgresql&user=u", None),
        ("postgresql://h,h2/d?port=5432,&user=u&password=a%26port%3Ds3cret", None),
        ("host=h dbname=d password=s3cret", None),
        ("host=h port=5433 dbname=d password='a port=s3cret'", None),
    ],
)
def test_a_database_url_is_read_as_libpq_reads_it(given: str, used: str | None) -> None:
    wanted = used or given.replace("+psycopg2", "")
    settings = load_settings(DATABASE_URL=given, STREAMFLOW_DAGSTER_DATABASE_URL=given)
    assert settings.database == wanted
    assert settings.dagster_database_url == SecretStr(wanted)
    conninfo_to_dict(settings.database)


WRONG_URLS = {
    "s3cret": "is not a URL",
    "s3cret://u:p@h/d": "does not begin with postgresql://",
    "postgresql:/u:s3cret@h/d": "is not a URL",
    "mysql://u:s3cret@h/d": "does not begin with postgresql://",
    "postgresql://u:s3cret%@h/d": "contains a %",
    "postgresql://u:s3cret%00@h/d": "contains a %",
    "postgresql://u:s3cret%de@h/d": "contains a %",
    "postgresql://u:s3cret zz@h/d": "contains a space",
    "postgresql://u:s3@cret@h/d": "write them as %2F and %40",
    "postgresql://u:s3/cret@h/d": "write them as %2F and %40",
    "postgresql://u:s3/c?ret@h/d": "a port that is not a number",
    "postgresql://u:p@h:s3cret/d": "a port that is not a number",
    "postgresql://u@h/d?password=a&s3cret": "a parameter without =",
    "postgresql://u@h/d?port=s3cret": "a port that is not a number",
    "postgresql://u@h/d?sslmode=require&port=5432,s3cret": "a port that is not a number",
    "postgresql://u:s3cret@h:0/d": "a port that is not a number",
    "host=h port=s3cret dbname=d": "a port that is not a number",
}


@pytest.mark.parametrize("name", ["DATABASE_URL", "STREAMFLOW_DAGSTER_DATABASE_URL"])
@pytest.mark.parametrize(("url", "says"), WRONG_URLS.items())
def test_a_wrong_database_url_is_named_and_not_told(name: str, url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        load_settings(**{name: url})
    assert str(caught.value).startswith(f"settings are wrong: {name}: ")
    assert "s3" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(ValidationError) as raw:
        Settings(**{name: url})  # type: ignore[arg-type]
    assert "s3" not in str(raw.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            b"STREAMFLOW_PREFX = 'a'",
            r"STREAMFLOW_PREFX is not a setting; did you mean STREAMFLOW_PREFIX",
        ),
        (b"port_offset = 1", r"port_offset is not a setting; write STREAMFLOW_PORT_OFFSET"),
        (b"[kafka]\nservers = 'a'", r"kafka is not a setting"),
        (b"STREAMFLOW_HOST = 127.0.0.1", r"is not TOML: .*line 1.*texts in quotes"),
        (b"STREAMFLOW_HOST\n", r"is not TOML: .*line 1"),
        ("STREAMFLOW_HOST = 'h'".encode("utf-16"), r"is not UTF-8 from byte 0 on"),
        ("STREAMFLOW_HOST = 'h'".encode("utf-16-le"), r"is not TOML"),
        (b"STREAMFLOW_HOST = 'J\xf6'", r"is not UTF-8 from byte 20 on"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "streamflow.toml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=says) as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_one_file_serves_all_processes(tmp_path: Path) -> None:
    (tmp_path / "streamflow.toml").write_bytes(
        b"\xef\xbb\xbfSTREAMFLOW_ALERT_FOR = 3\nSTREAMFLOW_DRAIN_LAG = 4\nSTREAMFLOW_HOST = '::1'\n"
    )
    assert load_settings().host == "::1"
    assert load_dashboard_settings().alert_for == 3
    assert load_orchestration_settings().drain_lag == 4


def test_a_tilde_is_the_users_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("STREAMFLOW_STATE_DIR", "~/state")
    assert load_settings().state_dir == tmp_path / "state"


@pytest.mark.parametrize("name", ["STREAMFLOW_STATE_DIR", "STREAMFLOW_KAFKA_SSL_CA"])
def test_the_folder_of_a_user_that_does_not_exist_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "~nobody-of-this-name/x")
    with pytest.raises(ConfigurationError, match=f"{name}: begins with ~, and there is no such"):
        load_settings()


def test_the_page_of_settings_is_up_to_date() -> None:
    page = (Path(__file__).parents[2] / reference.PAGE).read_text()
    assert reference.render(page) == page, "run `make docs-reference`"


def test_every_setting_is_described_and_named_once() -> None:
    fields = all_fields()
    assert all(field.description for field in fields.values())
    kinds = (Settings, DashboardSettings, IngestSettings, OrchestrationSettings, RegistrySettings)
    assert {str(f.alias) for kind in kinds for f in kind.model_fields.values()} == fields.keys()
    shared = DashboardSettings.model_fields.keys() & OrchestrationSettings.model_fields.keys()
    for name in shared - Settings.model_fields.keys():
        one, other = DashboardSettings.model_fields[name], OrchestrationSettings.model_fields[name]
        assert one.description == other.description
