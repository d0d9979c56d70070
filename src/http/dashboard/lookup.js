// Finding one event by its key.

import { ask as askService } from "./access.js";
import { find, read } from "./event.js";

let asked = 0;

find("lookup-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  look(find("lookup-topic").value, find("lookup-id").value);
});

/** Shows the event with this key, as if it had been typed. */
export function lookUp(topic, id) {
  find("lookup-topic").value = topic;
  find("lookup-id").value = id;
  look(topic, id);
  find("lookup").scrollIntoView({ block: "nearest" });
}

async function look(topic, id) {
  const question = ++asked;
  const [said, event] = await ask(topic, id);
  // The answer to an earlier question may come later.
  if (question !== asked) return;
  find("lookup-said").textContent = said;
  find("lookup-event").textContent = event;
  find("lookup-event").hidden = !event;
}

async function ask(topic, id) {
  // Browsers take these out of any address, however they are written.
  if ([topic, id].some((name) => name === "." || name === "..")) {
    return ["A browser cannot ask for the names . and ..; the command get of event-aggregator can.", ""];
  }
  try {
    const path = `/events/${encodeURIComponent(topic)}/${encodeURIComponent(id)}`;
    const answer = await askService(path, { patience: 15_000 });
    const text = await answer.text();
    return answer.ok ? ["Kept once, as it came first:", layOut(text)] : [JSON.parse(text).error, ""];
  } catch {
    return ["The service does not answer. Try again.", ""];
  }
}

/** The event with each field on a line of its own, and its payload as it came. */
function layOut(text) {
  const event = read(text);
  const order = ["topic", "event_id", "timestamp", "source", "payload", "received_at", "cursor"];
  const line = (name) => `  "${name}": ${name === "payload" ? event.payload : JSON.stringify(event[name])}`;
  return `{\n${order.map(line).join(",\n")}\n}`;
}
