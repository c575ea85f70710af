"""The broker of the tests with more listeners: behind a proxy, and with users."""

import argparse
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from faults import Proxy
from streamflow.kafka.acls import Right
from streamflow_pytest.services import (
    BrokerService,
    DatabaseService,
    Quiet,
    Service,
    ShortLivedBroker,
)
from streamflow_stack.broker import Node
from streamflow_stack.preflight import free_ports
from token_endpoint import AUDIENCE, SECRET, TokenEndpoint

__all__ = ["BrokerService", "DatabaseService", "Quiet", "Service"]


class _BrokerBehindProxy(ShortLivedBroker):
    """Has one more listener, whose clients are sent to the port of a proxy."""

    def __init__(self, node: Node, log: Path, listener: int, proxy: int) -> None:
        super().__init__(node, log)
        self._listener = listener
        self._proxy = proxy

    def _configuration(self) -> str:
        text = super()._configuration()
        for name, port in (("listeners", self._listener), ("advertised.listeners", self._proxy)):
            text = re.sub(rf"(?m)^{name}=.*", rf"\g<0>,PROXIED://127.0.0.1:{port}", text)
        return re.sub(r"(?m)^listener.security.protocol.map=.*", r"\g<0>,PROXIED:PLAINTEXT", text)


class _SecuredBroker(ShortLivedBroker):
    """Has two more listeners, both with TLS and ACLs: for SCRAM, and for tokens of an identity provider. On
    the first one everybody is the administrator."""

    def __init__(
        self, node: Node, log: Path, ports: tuple[int, int], certificate: Path, keys: Path
    ) -> None:
        super().__init__(node, log)
        self.secured, self.by_token = (f"127.0.0.1:{port}" for port in ports)
        self._certificate = certificate
        self._keys = keys.as_uri()

    def _java(self, class_path: str) -> tuple[str, ...]:
        java, *options = super()._java(class_path)
        # Kafka opens no other address or file for keys.
        allowed = "-Dorg.apache.kafka.sasl.oauthbearer.allowed"
        files = self._keys.removeprefix("file://")
        return (java, f"{allowed}.urls={self._keys}", f"{allowed}.files={files}", *options)

    def _configuration(self) -> str:
        text = super()._configuration()
        for name in ("listeners", "advertised.listeners"):
            more = f"SECURED://{self.secured},TOKENS://{self.by_token}"
            text = re.sub(rf"(?m)^{name}=.*", rf"\g<0>,{more}", text)
        text = re.sub(
            r"(?m)^listener.security.protocol.map=.*",
            r"\g<0>,SECURED:SASL_SSL,TOKENS:SASL_SSL",
            text,
        )
        package = "org.apache.kafka.common.security"
        tokens = f"{package}.oauthbearer.OAuthBearer"
        secured = {
            "listener.name.secured.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.secured.scram-sha-512.sasl.jaas.config": (
                f"{package}.scram.ScramLoginModule required;"
            ),
            "listener.name.tokens.sasl.enabled.mechanisms": "OAUTHBEARER",
            "listener.name.tokens.oauthbearer.sasl.jaas.config": f"{tokens}LoginModule required;",
            "listener.name.tokens.oauthbearer.sasl.server.callback.handler.class": (
                f"{tokens}ValidatorCallbackHandler"
            ),
            "sasl.oauthbearer.jwks.endpoint.url": self._keys,
            "sasl.oauthbearer.expected.audience": AUDIENCE,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
        for listener in ("secured", "tokens"):
            secured[f"listener.name.{listener}.ssl.keystore.type"] = "PEM"
            secured[f"listener.name.{listener}.ssl.keystore.location"] = str(self._certificate)
        return text + "".join(f"{name}={value}\n" for name, value in secured.items())


class SecuredBrokerService(Service):
    """A broker with a listener for SASL_SSL, whose users have the rights that they are granted, and none
    by default."""

    PASSWORD = "throw-away"

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        self.ca = directory / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        issued = authority.issue_cert("127.0.0.1")
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        # The only form that Kafka reads.
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        certificate = directory / "server.pem"
        certificate.write_bytes(pem + b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.tokens = TokenEndpoint(directory / "keys.json")
        port, controller, *listeners = free_ports(4)
        broker = _SecuredBroker(
            Node(1, port, controller, directory / "kafka"),
            directory / "kafka.log",
            (listeners[0], listeners[1]),
            certificate,
            self.tokens.keys,
        )
        super().__init__(broker, directory)
        self.open, self.secured, self.by_token = broker.address, broker.secured, broker.by_token

    def add_users(self, rights: Iterable[Right]) -> dict[str, dict[str, Any]]:
        """A user for each part, with its rights and no others; returns the settings to connect as each."""
        rights = list(rights)
        client = AdminClient({"bootstrap.servers": self.open})
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        users = dict.fromkeys(right.part for right in rights)
        entries = [
            UserScramCredentialUpsertion(user, info, self.PASSWORD.encode()) for user in users
        ]
        bindings = [
            binding
            for right in rights
            for binding in _granted(right.command(f"User:{right.part}", self.open))
        ]
        for future in (
            *client.alter_user_scram_credentials(entries).values(),
            *client.create_acls(bindings).values(),
        ):
            future.result(60)
        return {
            user: {
                "KAFKA_BOOTSTRAP_SERVERS": self.secured,
                "STREAMFLOW_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                "STREAMFLOW_KAFKA_SASL_USERNAME": user,
                "STREAMFLOW_KAFKA_SASL_PASSWORD": self.PASSWORD,
                "STREAMFLOW_KAFKA_SSL_CA": str(self.ca),
            }
            for user in users
        }

    def token_settings(self, user: str) -> dict[str, Any]:
        """The settings to connect as that user by a token."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.by_token,
            "STREAMFLOW_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "STREAMFLOW_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "STREAMFLOW_KAFKA_OAUTH_TOKEN_URL": self.tokens.url,
            "STREAMFLOW_KAFKA_OAUTH_CLIENT_ID": user,
            "STREAMFLOW_KAFKA_OAUTH_CLIENT_SECRET": SECRET,
            "STREAMFLOW_KAFKA_OAUTH_SCOPE": "kafka",
            "STREAMFLOW_KAFKA_SSL_CA": str(self.ca),
        }


def _granted(line: str) -> list[AclBinding]:
    """What a line for kafka-acls.sh grants; as Kafka documents its options, since the embedded broker comes
    without that program."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("--bootstrap-server", "--allow-principal"):
        parser.add_argument(option, required=True)
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--operation", action="append", required=True)
    parser.add_argument("--resource-pattern-type", default="literal")
    resources = parser.add_mutually_exclusive_group(required=True)
    for kind in _RESOURCES:
        resources.add_argument(f"--{kind}", dest=kind)
    program, *words = shlex.split(line)
    assert program == "kafka-acls.sh"
    given = vars(parser.parse_args(words))
    [(kind, name)] = [(kind, given[kind]) for kind in _RESOURCES if given[kind] is not None]
    return [
        AclBinding(
            _RESOURCES[kind],
            name,
            ResourcePatternType[given["resource_pattern_type"].upper()],
            given["allow_principal"],
            "*",
            AclOperation[re.sub(r"(?<!^)(?=[A-Z])", "_", operation).upper()],
            AclPermissionType.ALLOW,
        )
        for operation in given["operation"]
    ]


_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}


class ProxiedBrokerService(Service):
    """A broker with a proxy before one of its listeners. Its own requests to itself, such as the
    markers that end transactions, go past the proxy."""

    def __init__(self, directory: Path) -> None:
        port, controller, listener = free_ports(3)
        self.proxy = Proxy(listener)
        broker = _BrokerBehindProxy(
            Node(1, port, controller, directory / "kafka"),
            directory / "kafka.log",
            listener,
            self.proxy.port,
        )
        super().__init__(broker, directory)
        self.direct = broker.address
        self.proxied = f"127.0.0.1:{self.proxy.port}"
