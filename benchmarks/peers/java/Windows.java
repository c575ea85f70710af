import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/** Windows of each partition, as StreamFlow's: a store in memory with a changelog, and no topic between. */
final class Windows extends ContextualProcessor<byte[], byte[], String, String> {
    private static final String STORE = "counts";
    private static final long SIZE = 10_000; // milliseconds
    private static final long GRACE = 5_000;

    private KeyValueStore<String, Long> counts;
    private long latest;
    private long closed;

    static Topology topology() {
        return new Topology()
                .addSource("events", new ByteArrayDeserializer(), new ByteArrayDeserializer(),
                        StreamsPeer.place("TOPIC"))
                .addProcessor("windows", Windows::new, "events")
                .addStateStore(
                        Stores.keyValueStoreBuilder(
                                        Stores.inMemoryKeyValueStore(STORE), Serdes.String(), Serdes.Long())
                                .withCachingEnabled(),
                        "windows")
                .addSink("closed", StreamsPeer.place("OUTPUT"),
                        new StringSerializer(), new StringSerializer(), "windows");
    }

    @Override
    public void init(ProcessorContext<String, String> context) {
        super.init(context);
        counts = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        LoginEvent event = LoginEvent.read(record.value());
        if (event == null) {
            return;
        }
        long at = event.at().toEpochMilli();
        String key = (at - at % SIZE) + "|" + event.type();
        Long count = counts.get(key);
        counts.put(key, count == null ? 1L : count + 1);
        latest = Math.max(latest, at);
        long due = (latest - GRACE) - (latest - GRACE) % SIZE;
        if (due > closed) {
            closed = due;
            close(due, record.timestamp());
        }
    }

    private void close(long due, long timestamp) {
        List<KeyValue<String, Long>> ended = new ArrayList<>();
        try (KeyValueIterator<String, Long> all = counts.all()) {
            while (all.hasNext()) {
                KeyValue<String, Long> window = all.next();
                if (start(window.key) + SIZE <= due) {
                    ended.add(window);
                }
            }
        }
        for (KeyValue<String, Long> window : ended) {
            String type = window.key.substring(window.key.indexOf('|') + 1);
            String body = "{\"window_start\":" + start(window.key) + ",\"event_type\":\"" + type
                    + "\",\"count\":" + window.value + "}";
            context().forward(new Record<>(type, body, timestamp));
            counts.delete(window.key);
        }
    }

    private static long start(String key) {
        return Long.parseLong(key.substring(0, key.indexOf('|')));
    }
}
