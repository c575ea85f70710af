import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;

/** Kafka Streams with exactly_once_v2: StreamsPeer analytics|validator STATE_DIRECTORY. */
public final class StreamsPeer {
    private StreamsPeer() {}

    public static void main(String[] arguments) {
        Topology topology = switch (arguments[0]) {
            case "analytics" -> Windows.topology();
            case "validator" -> Router.topology();
            default -> throw new IllegalArgumentException(arguments[0]);
        };
        KafkaStreams streams = new KafkaStreams(topology, properties(arguments[1]));
        streams.setUncaughtExceptionHandler(failure -> {
            failure.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
        streams.start();
    }

    static String place(String name) {
        return System.getenv("PEER_" + name);
    }

    private static Properties properties(String stateDirectory) {
        Properties properties = new Properties();
        properties.putAll(Map.of(
                "application.id", place("GROUP"),
                "bootstrap.servers", System.getenv("KAFKA_BOOTSTRAP_SERVERS"),
                "state.dir", stateDirectory,
                "processing.guarantee", "exactly_once_v2",
                "commit.interval.ms", "200",
                "num.stream.threads", "1",
                "auto.offset.reset", "earliest",
                "replication.factor", "1",
                "buffered.records.per.partition", "20000"));
        properties.putAll(Map.of(
                "consumer.session.timeout.ms", "10000",
                "consumer.heartbeat.interval.ms", "2000",
                "consumer.max.poll.records", "10000",
                "consumer.fetch.max.bytes", "52428800",
                "consumer.max.partition.fetch.bytes", "4194304",
                "producer.compression.type", "lz4",
                "producer.linger.ms", "5",
                "producer.batch.size", "1000000",
                "producer.buffer.memory", "134217728"));
        return properties;
    }
}
