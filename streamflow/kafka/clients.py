"""Kafka clients from settings. The properties are those of librdkafka (CONFIGURATION.md)."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import tenacity
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from streamflow.errors import ConfigurationError, Fenced, StreamFlowError, Unavailable
from streamflow.settings import Settings

log = logging.getLogger("streamflow.kafka")

OAUTH: Final = "OAUTHBEARER"

# What matters in librdkafka's own log lines is also raised as an error.
log.setLevel(logging.ERROR)

_FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
    }
)
_DENIED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)


def translated(error: KafkaException) -> StreamFlowError:
    """A Kafka error as one of ours: its type says what the caller should do."""
    cause = error.args[0]
    if not isinstance(cause, KafkaError):
        return Unavailable(f"Kafka: {cause}")
    if cause.code() in _DENIED:
        return ConfigurationError(
            f"Kafka refuses these credentials ({cause.name()}): check STREAMFLOW_KAFKA_*"
        )
    if cause.code() in _FENCED:
        return Fenced(f"Kafka: {cause.str()}")
    return Unavailable(f"Kafka: {cause.str()}")


@contextmanager
def kafka_errors() -> Iterator[None]:
    """Raises Kafka's errors as StreamFlow's.

    Raises:
        Unavailable: the broker does not answer, or not now.
        Fenced: another client has taken over.
        ConfigurationError: the credentials are refused.
    """
    try:
        yield
    except KafkaException as error:
        raise translated(error) from error
    except TimeoutError as error:
        raise Unavailable("Kafka: an admin request was not answered in time") from error


# Until librdkafka gives up on a connection: by default it keeps a half-open one, whose other end is gone
# silently, for a minute.
_CONNECTION_TIMEOUTS = {
    "socket.timeout.ms": 10_000,
    "socket.connection.setup.timeout.ms": 10_000,
    "socket.keepalive.enable": True,
}

_BATCH_BYTES = 1_000_000

# Of a response; a single batch may be larger. The client keeps `fetch.max.bytes` above `message.max.bytes`.
_FETCH_BYTES = 65_536


def common_config(settings: Settings) -> dict[str, Any]:
    """What all clients need to connect."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap,
        "client.id": "streamflow",
        "security.protocol": settings.kafka_security_protocol,
        # Half of it is also what a client waits between two connections that it opens, its second one, to the
        # broker by its id, among them: a command that asks once would wait 50 ms for it.
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 2000,
        "logger": log,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        config |= (
            _oauth(settings) if settings.kafka_sasl_mechanism == OAUTH else _password(settings)
        )
    files = {
        "ssl.ca.location": settings.kafka_ssl_ca,
        "ssl.certificate.location": settings.kafka_ssl_certificate,
        "ssl.key.location": settings.kafka_ssl_key,
    }
    return config | {name: str(path) for name, path in files.items() if path is not None}


def _password(settings: Settings) -> dict[str, Any]:
    user, password = settings.kafka_sasl_username, settings.kafka_sasl_password
    if user is None or password is None:
        raise ConfigurationError(
            "SASL needs STREAMFLOW_KAFKA_SASL_USERNAME and STREAMFLOW_KAFKA_SASL_PASSWORD"
        )
    return {
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": user,
        "sasl.password": password.get_secret_value(),
    }


def _oauth(settings: Settings) -> dict[str, Any]:
    """The client library fetches the tokens, and renews them, by itself."""
    url, client = settings.kafka_oauth_token_url, settings.kafka_oauth_client_id
    secret = settings.kafka_oauth_client_secret
    if url is None or client is None or secret is None:
        raise ConfigurationError(
            "SASL by OAUTHBEARER needs STREAMFLOW_KAFKA_OAUTH_TOKEN_URL, "
            "STREAMFLOW_KAFKA_OAUTH_CLIENT_ID and STREAMFLOW_KAFKA_OAUTH_CLIENT_SECRET"
        )
    optional = {
        "sasl.oauthbearer.scope": settings.kafka_oauth_scope,
        "https.ca.location": settings.kafka_oauth_ca,
    }
    return {
        "sasl.mechanism": OAUTH,
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": url,
        "sasl.oauthbearer.client.id": client,
        "sasl.oauthbearer.client.secret": secret.get_secret_value(),
        **{name: str(value) for name, value in optional.items() if value is not None},
    }


def batches_within(record_bytes: int) -> dict[str, int]:
    """A property of producers to topics whose largest records have so many bytes: those topics take no larger
    batch either, and refuse all records of one."""
    return {"batch.size": min(_BATCH_BYTES, record_bytes)}


def producer(settings: Settings, **extra: Any) -> Producer:
    """An idempotent producer: acknowledged by all replicas, compressed, with the partitioner of the Java
    and Node clients. `extra` are further librdkafka properties, with their dots."""
    return Producer(
        common_config(settings)
        | _CONNECTION_TIMEOUTS
        | {
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": "lz4",
            "linger.ms": 5,
            "batch.num.messages": 100_000,
            "batch.size": _BATCH_BYTES,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 262_144,
            "message.max.bytes": 64_000_000,
            "partitioner": "murmur2_random",
        }
        | extra
    )


def consumer(settings: Settings, group: str, **extra: Any) -> Consumer:
    """A consumer of committed records only. It never commits or resets by itself: the caller says where
    to read from, and a position that is gone is an error, not a jump."""
    config = (
        common_config(settings)
        | _CONNECTION_TIMEOUTS
        | {
            "group.id": group,
            "group.protocol": settings.kafka_group_protocol,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": 32_768,
            # The client decompresses a response as a whole, and lz4 makes up to 255 bytes of one.
            "message.max.bytes": _FETCH_BYTES,
            "fetch.max.bytes": _FETCH_BYTES,
            "fetch.message.max.bytes": _FETCH_BYTES,
            # What the broker holds a fetch for while there is nothing: a record ends the wait at once. Until
            # it ends, the client asks for no other partition, and sees no end of one.
            "fetch.wait.max.ms": 200,
            "fetch.queue.backoff.ms": 20,
            "fetch.error.backoff.ms": 100,
        }
    )
    if settings.kafka_group_protocol == "consumer":
        # Shares out each topic. The default only balances the number of partitions: of two loaders one
        # got all three of the events, and the other those of the topics with few records.
        config["group.remote.assignor"] = "range"
    else:
        config |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 10_000,
            "heartbeat.interval.ms": 2_000,
        }
    return Consumer(config | extra)


def assigned_consumer(settings: Settings, group: str, **extra: Any) -> Consumer:
    """A consumer that is given its partitions with `assign` and joins no group, so that no member loses
    any. The group's name is for the offsets that it reads or commits.

    It speaks the classic protocol even if the group's members do not: only there may a client commit that
    is not a member.
    """
    alone = {"group.protocol": "classic", "partition.assignment.strategy": "range"}
    return consumer(settings, group, **(alone | extra))


def admin(settings: Settings) -> AdminClient:
    return AdminClient(common_config(settings))


def probe(settings: Settings, client: AdminClient) -> tuple[bool, str]:
    """Whether the broker answers within two seconds, for ``/ready``; and why not."""
    try:
        client.list_topics(timeout=2)
    except KafkaException:
        return (False, f"Kafka at {settings.bootstrap} does not answer")
    return (True, "ready")


# A partition or a group refuses requests for a moment while its leader changes, and a broker may learn
# of a new topic a little later than the one that created it.
retry_while_unavailable = tenacity.retry(
    retry=tenacity.retry_if_exception_type(Unavailable),
    wait=tenacity.wait_exponential(0.05, max=1),
    stop=tenacity.stop_after_delay(8),
    reraise=True,
)


def retrying(seconds: float) -> tenacity.Retrying:
    """Retries each second while broker or database are unavailable; raises Unavailable after `seconds`."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Unavailable),
        wait=tenacity.wait_fixed(1),
        stop=tenacity.stop_after_delay(seconds),
        reraise=True,
    )
