import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.time.DateTimeException;
import java.time.Instant;
import java.time.OffsetDateTime;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;

/** The contract of login events, as login_events.py has it. */
record LoginEvent(long id, String type, String user, String email, String time, Instant at) {
    static final ObjectMapper JSON = new ObjectMapper();
    static final Map<String, String> DONE = Map.of(
            "USER_LOGIN", "logged in",
            "USER_LOGIN_FAILED", "failed to log in",
            "USER_LOGOUT", "logged out",
            "USER_SIGNUP", "signed up");
    private static final Set<String> FIELDS = Set.of("id", "type", "user", "user_email", "timestamp");
    private static final Pattern HASH = Pattern.compile("[0-9a-f]{64}");
    private static final long LARGEST = 1L << 53;

    /** Null if the value breaks the contract. */
    static LoginEvent read(byte[] value) {
        try {
            JsonNode event = JSON.readTree(value);
            return event == null || !isValid(event) ? null : of(event);
        } catch (IOException | DateTimeException invalid) {
            return null;
        }
    }

    private static LoginEvent of(JsonNode event) {
        String time = event.get("timestamp").textValue();
        JsonNode email = event.get("user_email");
        return new LoginEvent(
                event.get("id").longValue(),
                event.get("type").textValue(),
                event.get("user").textValue(),
                email == null ? null : email.textValue(),
                time,
                OffsetDateTime.parse(time).toInstant());
    }

    private static boolean isValid(JsonNode event) {
        if (!event.isObject()) {
            return false;
        }
        for (var names = event.fieldNames(); names.hasNext(); ) {
            if (!FIELDS.contains(names.next())) {
                return false;
            }
        }
        JsonNode id = event.get("id");
        JsonNode type = event.get("type");
        JsonNode user = event.get("user");
        JsonNode email = event.get("user_email");
        JsonNode time = event.get("timestamp");
        return id != null && id.canConvertToLong() && id.isIntegralNumber()
                && id.longValue() >= 0 && id.longValue() < LARGEST
                && type != null && type.isTextual() && DONE.containsKey(type.textValue())
                && user != null && user.isTextual()
                && !user.textValue().isEmpty() && user.textValue().length() <= 256
                && (email == null || email.isTextual() && HASH.matcher(email.textValue()).matches())
                && time != null && time.isTextual();
    }
}
