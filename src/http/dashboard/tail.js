// The newest events. At high rates only the newest rows are rendered, a few times per second.

import { fetchWithToken } from "./access.js";
import { element, find, formatCount, parseEvent, splitArray, truncate } from "./event.js";
import { lookUp } from "./lookup.js";

const ROWS = 200;
const INITIAL_ROWS = 50;
const MAX_PAYLOAD = 300;
const RENDER_MILLISECONDS = 150;
const RETRY_MILLISECONDS = 1_000;
const MAX_LAG_MILLISECONDS = 3_000;

const timeFormat = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3,
});

const list = find("tail-rows");
const pause = find("tail-pause");
let events = [];
let pending = [];
let pendingWhilePaused = 0;
let mustClear = false;
let paused = false;
let filter = "";
let connection = null;
let renderTimer = 0;
let skippedAt = "";

/** Shows the newest events, and then new ones as they are stored. */
export async function start() {
  stop();
  const current = (connection = new AbortController());
  while (connection === current) {
    try {
      await follow(current.signal);
    } catch { /* The poll of the counters shows the error. */ }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MILLISECONDS));
  }
}

/** Stops the stream. Browsers limit the connections per host, and a hidden page must not use one. */
export function stop() {
  connection?.abort();
  connection = null;
}

async function follow(signal) {
  const topic = find("tail-topic").value.trim() && find("tail-topic").value;
  const query = topic ? `topic=${encodeURIComponent(topic)}&` : "";
  const listed = await fetchWithToken(`/events?${query}limit=${INITIAL_ROWS}`, { signal });
  const text = await listed.text();
  if (listed.status === 403) find("tail-note").textContent = JSON.parse(text).error;
  if (!listed.ok) throw new Error(text);
  const newest = splitArray(text);
  pending = [];
  pendingWhilePaused = 0;
  mustClear = true;
  newest.reverse().forEach(receive);
  scheduleRender();
  // An empty store has no cursor yet: start at its beginning, so that no event is missed. For a
  // single topic, a scan from the beginning could take long.
  const cursor = newest.length ? parseEvent(newest.at(-1)).cursor : topic ? "end" : "beginning";
  const stream = await fetchWithToken(`/events/stream?${query}cursor=${encodeURIComponent(cursor)}`, { signal });
  if (!stream.ok) throw new Error();
  // Difference to the clock of the service, with the resolution of the Date header.
  const clockOffset = (Date.parse(listed.headers.get("date")) || Date.now()) - Date.now();
  const began = performance.now();
  let rest = "";
  let last = "";
  for await (const chunk of chunks(stream.body.pipeThrough(new TextDecoderStream()))) {
    const blocks = (rest + chunk).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) receive((last = lines.map((line) => line.slice(5).trimStart()).join("\n")));
    }
    scheduleRender();
    if (last && !paused && performance.now() - began > MAX_LAG_MILLISECONDS) {
      const lag = Date.now() + clockOffset - Date.parse(parseEvent(last).received_at);
      if (lag > MAX_LAG_MILLISECONDS) {
        // The page cannot keep up: restart from the newest events.
        skippedAt = new Date().toLocaleTimeString("en-GB");
        return;
      }
    }
    last = "";
  }
}

async function* chunks(stream) {
  const reader = stream.getReader();
  try {
    for (let part; !(part = await reader.read()).done; ) yield part.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}

function receive(text) {
  if (filter && !matches(parseEvent(text))) return;
  pending.push(text);
  if (paused) pendingWhilePaused++;
  if (pending.length > 2 * ROWS) pending = pending.slice(-ROWS);
}

function matches(event) {
  const has = (text) => text.toLowerCase().includes(filter);
  return !filter || has(event.topic) || has(event.event_id) || has(event.source) || has(event.payload);
}

function scheduleRender() {
  if (paused) pause.textContent = `Resume (${formatCount(pendingWhilePaused)})`;
  if (renderTimer || paused) return;
  renderTimer = setTimeout(() => requestAnimationFrame(() => {
    renderTimer = 0;
    if (!paused) render();
  }), RENDER_MILLISECONDS);
}

function render() {
  if (mustClear) {
    events = [];
    list.replaceChildren();
    mustClear = false;
  }
  const incoming = pending.slice(-ROWS).map((text) => {
    const event = parseEvent(text);
    // Copy the truncated text: a slice keeps the whole string in memory.
    const payload = JSON.parse(JSON.stringify(truncate(event.payload, MAX_PAYLOAD)));
    return { ...event, payload, row: null };
  });
  pending = [];
  pendingWhilePaused = 0;
  events.push(...incoming);
  const removed = events.splice(0, Math.max(0, events.length - ROWS)).map((event) => event.row).filter(Boolean);
  const rows = events.filter((event) => !event.row).map((event) => {
    event.row = fillRow(removed.pop() ?? createRow(), event);
    event.row.hidden = !matches(event);
    return event.row;
  });
  removed.forEach((row) => row.remove());
  list.prepend(...rows.reverse());
  updateNotes();
}

function updateNotes() {
  const shown = events.filter((event) => !event.row.hidden).length;
  find("tail-none").hidden = shown > 0;
  find("tail-none").textContent = filter || find("tail-topic").value
    ? "No recent events match." : "Events appear here as soon as they are stored.";
  const note = skippedAt ? `; some events skipped at ${skippedAt}, because the rate is too high` : "";
  find("tail-note").textContent = shown ? `newest ${shown}${note}` : "";
  list.hidden = !shown;
}

function createRow() {
  const row = element("li");
  const id = element("button", "link id");
  id.type = "button";
  row.append(element("time"), element("span", "topic"), id, element("span", "source"), element("code"));
  return row;
}

function fillRow(row, event) {
  const [time, topic, id, source, payload] = row.children;
  time.textContent = timeFormat.format(new Date(event.received_at));
  time.dateTime = event.received_at;
  topic.textContent = topic.title = event.topic;
  id.textContent = event.event_id;
  id.title = "Look up this event";
  source.textContent = source.title = event.source;
  payload.textContent = event.payload;
  return row;
}

list.addEventListener("click", (click) => {
  const event = click.target.closest("button") && events.find((event) => event.row.contains(click.target));
  if (event) lookUp(event.topic, event.event_id);
});
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", paused);
  pause.textContent = "Pause";
  scheduleRender();
});
find("tail-filter").addEventListener("input", (input) => {
  filter = input.target.value.toLowerCase();
  for (const event of events) event.row.hidden = !matches(event);
  updateNotes();
});
find("tail-topic").addEventListener("change", start);
find("tail-form").addEventListener("submit", (event) => event.preventDefault());

/** Shows the newest events of one topic. */
export function showTopic(topic) {
  find("tail-topic").value = topic;
  start();
  find("tail").scrollIntoView({ block: "nearest" });
}
