"""`streamflow produce` and `dlq`: which stream, and which options go together. No broker is asked."""

import pytest
from typer.testing import CliRunner

from order_streams import STREAMS
from streamflow_cli.app import app

ORDERS = "order_streams:ORDERS"
FOREIGN = "order_streams:FOREIGN"
SEVERAL = "there are several streams (user-events, orders): choose one with --stream NAME"
UNASKED = (
    "stream foreign is not simulated, since its topic has another owner: if simulated events may go "
    "there, run `streamflow produce --stream foreign --not-ours`"
)
NOT_OURS = (
    "topic foreign of stream foreign belongs to another owner, and everyone who reads it would get what "
    "is sent: if the owner allows it, add --not-ours"
)
UNREACHABLE = (
    "the broker at 127.0.0.1:1 does not answer: start it (`streamflow up`), or "
    "set KAFKA_BOOTSTRAP_SERVERS"
)


@pytest.fixture(autouse=True)
def _logging_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger writes where it was first used: to a runner's file, which is closed in the next test."""
    monkeypatch.setattr("streamflow.monitoring.configure_logging", lambda _settings: None)


def refused(monkeypatch: pytest.MonkeyPatch, streams: str, *arguments: str) -> str:
    """What a command answers that ends before it asks a server."""
    monkeypatch.setenv("STREAMFLOW_STREAMS", streams)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert done.exception is not None
    return str(done.exception)


@pytest.mark.parametrize(
    ("streams", "arguments", "says"),
    [
        (
            STREAMS,
            (),
            f"{SEVERAL}, or simulate all with --all",
        ),
        (
            STREAMS,
            ("--from", "-"),
            SEVERAL,
        ),
        (
            STREAMS,
            ("--stream", "order"),
            "no stream is called order: did you mean orders? Configured: user-events, orders",
        ),
        (
            STREAMS,
            ("--stream", "orders", "--all"),
            "--stream and --all cannot be combined: --all means every stream",
        ),
        (
            FOREIGN,
            ("--all",),
            UNASKED,
        ),
        (FOREIGN, (), NOT_OURS),
        (FOREIGN, ("--stream", "foreign", "--count", "1"), NOT_OURS),
        (FOREIGN, ("--from", "-"), NOT_OURS),
        # Allowed: the broker is asked next.
        (FOREIGN, ("--not-ours",), UNREACHABLE),
    ],
)
def test_it_is_clear_which_stream_is_sent_to(
    streams: str, arguments: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refused(monkeypatch, streams, "produce", *arguments) == says


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--from", "-", "--rate", "5"), "--rate is for simulated events, and --from sends a file"),
        (("--from", "-", "--count", "5"), "--count is for simulated events"),
        (("--from", "-", "--seed", "5"), "--seed is for simulated events"),
        (("--from", "-", "--invalid-ratio", "0"), "--invalid-ratio is for simulated events"),
        (("--from", "-", "--health-port", "0"), "--health-port is for simulated events"),
        (("--from", "-", "--all"), "--all is for simulated events"),
        (("--on-invalid", "skip"), "--on-invalid is for files: name one with --from FILE"),
        (("--pace", "full"), "--pace is for files"),
        (("--complete",), "--complete is for files"),
        (("--resume",), "--resume needs a file: name one with --from FILE"),
        (("--from", "-", "--resume"), "--resume needs a file: name one with --from FILE"),
        (("--from", "-", "--speed", "2"), "--speed needs --pace event-time"),
        (("--from", "-", "--pace", "full", "--speed", "2"), "--speed needs --pace event-time"),
    ],
)
def test_no_option_is_ignored_without_a_word(
    arguments: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refused(monkeypatch, ORDERS, "produce", *arguments).startswith(says)


@pytest.mark.parametrize("command", ["list", "replay"])
@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("SCHEMA_VIOLATON", "'SCHEMA_VIOLATON' is not an error code (did you mean SCHEMA_VIOLATION?)"),
        ("invalid_json", "'invalid_json' is not an error code (did you mean INVALID_JSON?)"),
        ("TOO_HOT_TO_HANDLE", "'TOO_HOT_TO_HANDLE' is not an error code: choose from EMPTY_VALUE, "),
    ],
)  # fmt: skip
def test_an_unknown_error_code_is_refused_with_the_nearest_one(
    command: str, code: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = ("--code", "EMPTY_VALUE", "--code", code)
    assert refused(monkeypatch, STREAMS, "dlq", command, *codes).startswith(says)


@pytest.mark.parametrize("command", ["list", "replay"])
def test_dead_letters_of_an_unknown_stream_are_refused(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = refused(monkeypatch, STREAMS, "dlq", command, "--stream", "shipments")
    assert says == "no stream is called shipments. Configured: user-events, orders"
