import java.util.Date;
import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.data.Timestamp;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.transforms.Transformation;

/** A transformation of Kafka Connect: bytes to a row. What breaks the contract is a dead letter. */
public final class ToRow implements Transformation<SinkRecord> {
    private static final Schema ROW = SchemaBuilder.struct()
            .name("row")
            .field("id", Schema.INT64_SCHEMA)
            .field("type", Schema.STRING_SCHEMA)
            .field("user", Schema.STRING_SCHEMA)
            .field("user_email", Schema.OPTIONAL_STRING_SCHEMA)
            .field("timestamp", Timestamp.SCHEMA)
            .field("origin_topic", Schema.STRING_SCHEMA)
            .field("origin_partition", Schema.INT32_SCHEMA)
            .field("origin_offset", Schema.INT64_SCHEMA)
            .build();

    @Override
    public SinkRecord apply(SinkRecord record) {
        LoginEvent event = LoginEvent.read((byte[]) record.value());
        if (event == null) {
            throw new DataException("the record breaks the contract");
        }
        Struct row = new Struct(ROW)
                .put("id", event.id())
                .put("type", event.type())
                .put("user", event.user())
                .put("user_email", event.email())
                .put("timestamp", Date.from(event.at()))
                .put("origin_topic", record.topic())
                .put("origin_partition", record.kafkaPartition())
                .put("origin_offset", record.kafkaOffset());
        return record.newRecord(
                record.topic(), record.kafkaPartition(), null, null, ROW, row, record.timestamp());
    }

    @Override
    public ConfigDef config() {
        return new ConfigDef();
    }

    @Override
    public void configure(Map<String, ?> properties) {}

    @Override
    public void close() {}
}
