"""Who may do what, and the settings that say so."""

import errno
from pathlib import Path
from typing import Any

import pytest
from streamlit import config
from structlog.testing import capture_logs

from streamflow.errors import ConfigurationError
from streamflow.privacy import Hasher
from streamflow.settings.dashboard import DashboardSettings, load_dashboard_settings
from streamlit_app.access.replaying import PlanRequest, apply, plan
from streamlit_app.access.roles import Forbidden, Identity, identify, require_operator
from streamlit_app.access.sign_in import check_secrets
from streamlit_app.measure.dagster import Dagster

HASHER = Hasher()


def settings(**values: Any) -> DashboardSettings:
    return load_dashboard_settings(**values)


@pytest.mark.parametrize(
    ("host", "role", "expected"),
    [
        ("127.0.0.1", None, "operator"),
        ("localhost", None, "operator"),
        ("::1", None, "operator"),
        ("0.0.0.0", None, "viewer"),  # noqa: S104 (what is tested)
        ("10.0.0.5", None, "viewer"),
        ("dashboard.internal", None, "viewer"),
        ("0.0.0.0", "operator", "operator"),  # noqa: S104 (what is tested)
        ("127.0.0.1", "viewer", "viewer"),
    ],
)
def test_read_only_beyond_the_own_machine(host: str, role: str | None, expected: str) -> None:
    made = settings(STREAMFLOW_HOST=host, STREAMFLOW_DASHBOARD_ROLE=role)
    assert made.default_role == expected
    assert identify(made, HASHER).role == expected
    # The probe writes to Kafka: not where one may only look.
    assert made.probes is (expected == "operator")


def test_the_probe_can_be_switched() -> None:
    assert not settings(STREAMFLOW_DASHBOARD_PROBE=False).probes
    assert settings(STREAMFLOW_DASHBOARD_ROLE="viewer", STREAMFLOW_DASHBOARD_PROBE=True).probes


TOKENS = {
    "STREAMFLOW_DASHBOARD_SIGN_IN": "token",
    "STREAMFLOW_DASHBOARD_OPERATOR_TOKEN": "open-sesame",
    "STREAMFLOW_DASHBOARD_VIEWER_TOKEN": "let-me-see",
}


@pytest.mark.parametrize(
    ("token", "role"),
    [
        (None, None),
        ("", None),
        ("guess", None),
        ("let-me-see", "viewer"),
        ("open-sesame", "operator"),
    ],
)
def test_sign_in_by_token(token: str | None, role: str | None) -> None:
    user = identify(settings(**TOKENS), HASHER, token=token)
    assert user.role == role
    if role is not None:
        assert user.label == f"{role} (token)"


def test_sign_in_by_token_needs_a_token() -> None:
    with pytest.raises(ConfigurationError, match="STREAMFLOW_DASHBOARD_OPERATOR_TOKEN"):
        settings(STREAMFLOW_DASHBOARD_SIGN_IN="token")


def test_tokens_are_in_no_representation() -> None:
    assert "open-sesame" not in repr(settings(**TOKENS))


OIDC = {
    "STREAMFLOW_DASHBOARD_SIGN_IN": "oidc",
    "STREAMFLOW_DASHBOARD_OPERATORS": "ann@example.com, weiss@example.com, kim@example.com",
}


@pytest.mark.parametrize(
    ("user", "role"),
    [
        (None, None),
        ({}, None),
        ({"name": "ann@example.com", "email_verified": True}, None),
        ({"email": "eve@example.com", "email_verified": True}, "viewer"),
        ({"email": "Ann@Example.com", "email_verified": True}, "operator"),
        ({"email": "ann@example.com", "email_verified": "true"}, "operator"),
        ({"email": "ann@example.com", "email_verified": "false"}, "viewer"),
        ({"email": "ann@example.com", "email_verified": False}, "viewer"),
        ({"email": "ann@example.com", "email_verified": 1}, "viewer"),
        # A provider that says nothing about it may let its users choose their addresses.
        ({"email": "ann@example.com"}, "viewer"),
        ({"email": "ann@example.com", "email_verified": None}, "viewer"),
        # Other mailboxes, which are the same to casefold().
        ({"email": "wei\u00df@example.com", "email_verified": True}, "viewer"),
        ({"email": "\u212aim@example.com", "email_verified": True}, "viewer"),
    ],
)
def test_sign_in_by_an_identity_provider(user: dict[str, Any] | None, role: str | None) -> None:
    assert identify(settings(**OIDC), HASHER, user=user).role == role


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({}, "operator"),
        ({"email_verified": None}, "operator"),
        ({"email_verified": False}, "viewer"),
        ({"email_verified": "false"}, "viewer"),
    ],
)
def test_a_provider_that_says_nothing_about_addresses_can_be_trusted(
    claims: dict[str, Any], role: str
) -> None:
    trusting = settings(**OIDC, STREAMFLOW_DASHBOARD_TRUST_ADDRESSES=True)
    assert identify(trusting, HASHER, user={"email": "ann@example.com", **claims}).role == role
    eve = {"email": "eve@example.com", **claims}
    assert identify(trusting, HASHER, user=eve).role == "viewer"


def test_the_history_names_an_operator_by_the_listed_address() -> None:
    claims = {"email": "Ann@Example.com", "email_verified": True, "name": "kim"}
    assert identify(settings(**OIDC), HASHER, user=claims).name == "ann"
    claims["name"] = "@ann"
    assert identify(settings(**OIDC), HASHER, user=claims).name == "ann"


def test_operators_with_the_same_name_are_told_apart() -> None:
    addresses = ("kim@example.com", "Kim@example.org")
    both = settings(**OIDC | {"STREAMFLOW_DASHBOARD_OPERATORS": ",".join(addresses)})
    names = [identify(both, HASHER, user={"email": address}).name for address in addresses]
    assert names == [f"{address[:3]} ({HASHER.hash(address)})" for address in addresses]


@pytest.mark.parametrize(
    "address", ["ann%40example.com@example.org", "ann\uff20example.com@example.org", "@ann"]
)
def test_a_name_holds_no_address_and_is_not_empty(address: str) -> None:
    listed = settings(**OIDC | {"STREAMFLOW_DASHBOARD_OPERATORS": address})
    name = identify(listed, HASHER, user={"email": address, "email_verified": True}).name
    assert name
    assert "example" not in name


@pytest.mark.parametrize(
    ("configured", "given", "advice"),
    [
        ({"STREAMFLOW_DASHBOARD_ROLE": "viewer"}, {}, "STREAMFLOW_DASHBOARD_ROLE=operator"),
        (TOKENS, {"token": "let-me-see"}, "operators' token"),
        (OIDC, {"user": {"email": "eve@example.com"}}, "STREAMFLOW_DASHBOARD_OPERATORS"),
        (OIDC, {"user": {"email": "ann@example.com"}}, "not say that it is verified"),
    ],
)
def test_a_viewer_is_told_what_makes_an_operator(
    configured: dict[str, Any], given: dict[str, Any], advice: str
) -> None:
    viewer = identify(settings(**configured), HASHER, **given)
    assert advice in viewer.advice
    with pytest.raises(Forbidden, match=advice):
        require_operator(viewer)


def test_an_action_asks_for_the_role() -> None:
    require_operator(Identity("ann", "operator"))
    for role in ("viewer", None):
        with pytest.raises(Forbidden, match="operator"):
            require_operator(Identity("eve", role))  # type: ignore[arg-type]


def test_a_viewer_cannot_replay_whatever_the_page_shows() -> None:
    # Nobody listens there: a viewer's request must not even be sent.
    dagster, eve = Dagster("http://127.0.0.1:9"), Identity("eve", "viewer")
    with pytest.raises(Forbidden):
        plan(dagster, eve, PlanRequest())
    with pytest.raises(Forbidden):
        apply(dagster, eve, 17)


class Launches(Dagster):
    """Keeps what it is asked to launch."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9")
        self.configs: list[dict[str, Any]] = []

    def launch(self, job: str, config: dict[str, Any]) -> str:
        assert job == "replay_dead_letters"
        self.configs.append(config["ops"]["replay"]["config"])
        return "run"


def test_what_is_asked_for_is_the_jobs_config() -> None:
    dagster, ann = Launches(), Identity("ann", "operator")
    request = PlanRequest(ids=("user-events/0/17",), repairs=("hash_address",))
    assert plan(dagster, ann, request) == apply(dagster, ann, 17) == "run"
    planned, applied = dagster.configs
    assert planned == {
        "ids": ["user-events/0/17"],
        "error_codes": [],
        "texts": [],
        "stream": None,
        "since": None,
        "loaded_until": None,
        "repairs": ["hash_address"],
        "dry_run": True,
        "canary": 10,
        "rate": 500.0,
        "requested_by": "ann",
    }
    assert applied == {"dry_run": False, "plan_id": 17, "requested_by": "ann"}


@pytest.mark.parametrize(
    "values",
    [
        {"STREAMFLOW_WORKER_URLS": "loader=nowhere"},
        {"STREAMFLOW_DASHBOARD_ROLE": "king"},
        {"STREAMFLOW_ALERT_DEAD_LETTER_RATIO": 2},
        {"STREAMFLOW_DASHBOARD_INTERVAL": 0},
    ],
)
def test_wrong_settings_are_named(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(values))):
        settings(**values)


def test_workers_elsewhere() -> None:
    made = settings(STREAMFLOW_WORKER_URLS="loader=http://loader:9103/, validator=http://v:9101")
    assert made.workers == {"loader": "http://loader:9103", "validator": "http://v:9101"}
    assert settings(STREAMFLOW_PORT_OFFSET=7).workers["loader"] == "http://127.0.0.1:9110"


def test_the_ingest_worker_is_looked_at_where_it_is_enabled() -> None:
    assert "ingest" not in settings().workers
    assert settings(STREAMFLOW_INGEST_ENABLED="true").workers["ingest"] == "http://127.0.0.1:9105"


def test_links_to_runs_lead_where_a_browser_reaches_dagster() -> None:
    inside = "http://dagster-webserver:3000"
    settings = DashboardSettings(
        STREAMFLOW_DAGSTER_URL=inside, STREAMFLOW_DAGSTER_PUBLIC_URL="http://127.0.0.1:3300/"
    )
    source = Dagster(settings.dagster, settings.dagster_for_people)
    assert source.run_url("17") == "http://127.0.0.1:3300/runs/17"
    assert source.url == inside
    alone = DashboardSettings(STREAMFLOW_DAGSTER_URL=inside)
    assert Dagster(alone.dagster, alone.dagster_for_people).run_url("17") == f"{inside}/runs/17"


def warned_of(file: Path, sign_in: str = "oidc") -> list[str]:
    before = config.get_option("secrets.files")
    config.set_option("secrets.files", [str(file)])
    try:
        with capture_logs() as said:
            check_secrets(settings(STREAMFLOW_DASHBOARD_SIGN_IN=sign_in))
    finally:
        config.set_option("secrets.files", before)
    return [line["file"] for line in said]


@pytest.mark.parametrize(
    ("mode", "sign_in", "warned"),
    [(0o600, "oidc", False), (0o640, "oidc", True), (0o644, "oidc", True), (0o644, "none", False)],
)
def test_secrets_that_others_can_read_are_warned_of(
    mode: int, sign_in: str, warned: bool, tmp_path: Path
) -> None:
    file = tmp_path / "secrets.toml"
    file.touch()
    file.chmod(mode)
    assert warned_of(file, sign_in) == [str(file)] * warned


def test_a_folder_of_secrets_and_one_that_cannot_be_seen_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert warned_of(tmp_path) == []
    assert warned_of(tmp_path / "secrets.toml") == []

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    # As of a folder of another user; root, who may run the tests, is refused nothing.
    monkeypatch.setattr(Path, "stat", refuse)
    assert warned_of(tmp_path / "secrets.toml") == []
