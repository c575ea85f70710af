"""The shortest honest validator: notifications and dead letters in transactions with the offsets."""

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from login_events import (
    CONSUMER,
    DEAD_LETTERS,
    GROUP,
    OUTPUT,
    PRODUCER,
    TOPIC,
    notification,
    read,
    stop_on_sigterm,
)

BATCH = 10_000
TIMEOUT = 30  # seconds

stop_on_sigterm()
consumer = Consumer(CONSUMER)
producer = Producer(PRODUCER | {"transactional.id": GROUP, "linger.ms": 0})
producer.init_transactions(TIMEOUT)
consumer.subscribe([TOPIC])

while True:
    messages = consumer.consume(BATCH, 0.1)
    if not messages:
        continue
    positions = {}
    producer.begin_transaction()
    for message in messages:
        if message.error():
            raise SystemExit(f"error: {message.error()}")
        partition, offset = message.partition(), message.offset()
        positions[partition] = offset + 1
        headers = [("origin", f"{TOPIC}/{partition}/{offset}".encode())]
        try:
            event = read(message.value())
        except ValueError:
            producer.produce(DEAD_LETTERS, message.value(), message.key(), headers=headers)
            continue
        value = orjson.dumps(notification(event))
        producer.produce(OUTPUT, value, event.user.encode(), headers=headers)
    producer.send_offsets_to_transaction(
        [TopicPartition(TOPIC, *position) for position in positions.items()],
        consumer.consumer_group_metadata(),
        TIMEOUT,
    )
    producer.commit_transaction(TIMEOUT)
