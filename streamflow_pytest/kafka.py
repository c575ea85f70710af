"""A test's share of the session's broker."""

from dataclasses import dataclass
from typing import Final

from confluent_kafka.admin import AdminClient, NewTopic

from streamflow_pytest.waiting import wait_until

_SECONDS: Final = 70.0


@dataclass(frozen=True)
class Kafka:
    """A real broker, and a prefix that no other test uses."""

    bootstrap_servers: str
    prefix: str  # for topics, groups and transactional ids

    def create_topic(self, name: str, partitions: int = 1) -> str:
        """Creates a topic; returns its name, which begins with the prefix, once clients find it."""
        client, topic = self._admin(), f"{self.prefix}{name}"
        client.create_topics([NewTopic(topic, partitions)])[topic].result(_SECONDS)
        wait_until(lambda: topic in self._topics(client), _SECONDS, f"the topic {topic}")
        return topic

    def delete_topics(self) -> None:
        """Deletes the topics that begin with the prefix."""
        client = self._admin()
        names = [name for name in self._topics(client) if name.startswith(self.prefix)]
        if names:
            for future in client.delete_topics(names).values():
                # Waited for, not judged: the test may have deleted one itself.
                future.exception(_SECONDS)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers})

    @staticmethod
    def _topics(client: AdminClient) -> list[str]:
        return list(client.list_topics(timeout=_SECONDS).topics)
