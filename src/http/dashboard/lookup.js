// Lookup of an event by its key.

import { fetchWithToken } from "./access.js";
import { find, parseEvent } from "./event.js";

const TIMEOUT_MILLISECONDS = 15_000;

let lookups = 0;

find("lookup-form").addEventListener("submit", (event) => {
  event.preventDefault();
  showEvent(find("lookup-topic").value, find("lookup-id").value);
});

/** Fills in the lookup form and shows the event with this key. */
export function lookUp(topic, id) {
  find("lookup-topic").value = topic;
  find("lookup-id").value = id;
  showEvent(topic, id);
  find("lookup").scrollIntoView({ block: "nearest" });
}

async function showEvent(topic, id) {
  const lookup = ++lookups;
  const [message, event] = await fetchEvent(topic, id);
  // Ignore the response to an earlier lookup.
  if (lookup !== lookups) return;
  find("lookup-said").textContent = message;
  find("lookup-event").textContent = event;
  find("lookup-event").hidden = !event;
}

/** A message, and the formatted event if there is one. */
async function fetchEvent(topic, id) {
  // Browsers remove these path segments from URLs, even if they are percent-encoded.
  if ([topic, id].some((name) => name === "." || name === "..")) {
    return ["Browsers cannot request the names . and .. in a URL: use event-aggregator get.", ""];
  }
  try {
    const path = `/events/${encodeURIComponent(topic)}/${encodeURIComponent(id)}`;
    const response = await fetchWithToken(path, { timeout: TIMEOUT_MILLISECONDS });
    const text = await response.text();
    return response.ok ? ["Stored event:", formatEvent(text)] : [JSON.parse(text).error, ""];
  } catch {
    return ["The service is not responding. Try again.", ""];
  }
}

/** Formats an event with one field per line. The payload remains verbatim. */
function formatEvent(text) {
  const event = parseEvent(text);
  const order = ["topic", "event_id", "timestamp", "source", "payload", "received_at", "cursor"];
  const line = (name) => `  "${name}": ${name === "payload" ? event.payload : JSON.stringify(event[name])}`;
  return `{\n${order.map(line).join(",\n")}\n}`;
}
