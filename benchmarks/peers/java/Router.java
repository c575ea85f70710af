import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Record;

/** Notifications and dead letters. */
final class Router extends ContextualProcessor<byte[], byte[], byte[], byte[]> {
    static Topology topology() {
        ByteArraySerializer bytes = new ByteArraySerializer();
        return new Topology()
                .addSource("events", new ByteArrayDeserializer(), new ByteArrayDeserializer(),
                        StreamsPeer.place("TOPIC"))
                .addProcessor("router", Router::new, "events")
                .addSink("notifications", StreamsPeer.place("OUTPUT"), bytes, bytes, "router")
                .addSink("dead-letters", StreamsPeer.place("DEAD_LETTERS"), bytes, bytes, "router");
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        var source = context().recordMetadata().orElseThrow();
        String origin = source.topic() + "/" + source.partition() + "/" + source.offset();
        record.headers().add("origin", origin.getBytes(StandardCharsets.UTF_8));
        LoginEvent event = LoginEvent.read(record.value());
        if (event == null) {
            context().forward(record, "dead-letters");
        } else {
            context().forward(record.withValue(notification(event)), "notifications");
        }
    }

    private static byte[] notification(LoginEvent event) {
        ObjectNode body = LoginEvent.JSON.createObjectNode();
        body.put("message", "User " + event.user() + " " + LoginEvent.DONE.get(event.type()));
        body.put("time", event.time());
        body.put("event_id", event.id());
        body.put("user", event.user());
        try {
            return LoginEvent.JSON.writeValueAsBytes(body);
        } catch (JsonProcessingException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
