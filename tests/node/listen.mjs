// A client as Node.js programs of this pipeline write them, which prints what it gets, a JSON object
// a line.
//
// Usage: node listen.mjs URL '{"options": {...}, "subscribe": {...}, "count": 10, "quiet": true}'
//   options    of socket.io-client: auth, query, transports, extraHeaders
//   subscribe  sent once connected
//   count      events after which it prints a summary and ends
//   quiet      no line for each event
import { createRequire } from "node:module";

const [url, given] = process.argv.slice(2);
const wishes = JSON.parse(given ?? "{}");
// The library lives in a cache folder, outside the checkout.
const { io } = createRequire(process.env.STREAMFLOW_NODE_MODULES)("socket.io-client");

const say = (event, body) => process.stdout.write(JSON.stringify({ event, body }) + "\n");
let received = 0;
let missed = 0;
const delays = []; // milliseconds from the event's own time to here
const appended = []; // milliseconds from the broker's time stamp to here

const quantiles = (values) => {
  values.sort((a, b) => a - b);
  const at = (share) => values[Math.min(values.length - 1, Math.floor(values.length * share))];
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
};

const socket = io(url, wishes.options);
socket.on("connect", () => {
  say("connect", { transport: socket.io.engine.transport.name });
  if (wishes.subscribe) socket.emit("subscribe", wishes.subscribe, (answer) => say("subscribed", answer));
});
socket.on("connect_error", (error) => {
  say("connect_error", { message: error.message });
  if (!socket.active) process.exit(3);
});
socket.on("disconnect", (reason) => say("disconnect", { reason }));
socket.on("kafka-error", (body) => say("kafka-error", body));
socket.on("kafka-event-dropped", (body) => {
  missed += body.missed;
  say("kafka-event-dropped", body);
});
socket.on("kafka-event", (body) => {
  received += 1;
  if (wishes.delays) {
    delays.push(Date.now() - Date.parse(body.payload.timestamp));
    appended.push(Date.now() - Date.parse(body.timestamp));
  }
  if (!wishes.quiet) say("kafka-event", body);
  if (received === wishes.count) {
    say("done", {
      received,
      missed,
      transport: socket.io.engine.transport.name,
      delays: quantiles(delays),
      appended: quantiles(appended),
    });
    socket.close();
  }
});
