"""The shortest honest loader: a batch of records, a COPY and the offsets in one transaction."""

import psycopg
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from login_events import CONSUMER, COPY, DATABASE, TOPIC, line, read, stop_on_sigterm

BATCH = 10_000

stop_on_sigterm()
consumer = Consumer(CONSUMER)
database = psycopg.connect(DATABASE, autocommit=True)
database.execute(
    "CREATE TABLE IF NOT EXISTS hand_positions (partition integer PRIMARY KEY, next bigint)"
)
known: dict[int, int] = dict(
    database.execute("SELECT partition, next FROM hand_positions").fetchall()
)
partitions = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
consumer.assign(
    [TopicPartition(TOPIC, each, known.get(each, OFFSET_BEGINNING)) for each in partitions]
)

while True:
    lines = []
    positions = {}
    for message in consumer.consume(BATCH, 0.1):
        if message.error():
            raise SystemExit(f"error: {message.error()}")
        partition, offset = message.partition(), message.offset()
        positions[partition] = offset + 1
        try:
            event = read(message.value())
        except ValueError:
            continue  # the validator's dead letter
        lines.append(line(event, partition, offset))
    if positions:
        with database.transaction(), database.cursor() as cursor:
            with cursor.copy(COPY) as copy:
                copy.write("".join(lines))
            cursor.executemany(
                "INSERT INTO hand_positions VALUES (%s, %s) "
                "ON CONFLICT (partition) DO UPDATE SET next = excluded.next",
                list(positions.items()),
            )
