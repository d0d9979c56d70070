// The newest events, as they are kept. However many come, few are shown: between two drawings only
// the last ones wait, and nobody reads more than a few drawings in a second.

import { ask } from "./access.js";
import { cut, element, find, read, split, whole } from "./event.js";
import { lookUp } from "./lookup.js";

const ROWS = 200;
const AT_FIRST = 50;
const MAX_PAYLOAD = 300;
const DRAW_MILLISECONDS = 150;
const AGAIN_MILLISECONDS = 1_000;
const MAX_BEHIND_MILLISECONDS = 3_000;

const clock = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3,
});

const list = find("tail-rows");
const pause = find("tail-pause");
let kept = [];
let waiting = [];
let missed = 0;
let anew = false;
let paused = false;
let filter = "";
let connection = null;
let drawing = 0;
let skipped = "";

/** Shows the newest events and goes on with those to come. */
export async function start() {
  stop();
  const mine = (connection = new AbortController());
  while (connection === mine) {
    try {
      await follow(mine.signal);
    } catch { /* The notice of the page tells. */ }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MILLISECONDS));
  }
}

/** Shows no more. A hidden page must not hold one of the few connections that a browser has. */
export function stop() {
  connection?.abort();
  connection = null;
}

async function follow(signal) {
  const topic = find("tail-topic").value.trim() && find("tail-topic").value;
  const query = topic ? `topic=${encodeURIComponent(topic)}&` : "";
  const listed = await ask(`/events?${query}limit=${AT_FIRST}`, { signal });
  const text = await listed.text();
  if (listed.status === 403) find("tail-note").textContent = JSON.parse(text).error;
  if (!listed.ok) throw new Error(text);
  const newest = split(text);
  waiting = [];
  missed = 0;
  anew = true;
  newest.reverse().forEach(take);
  draw();
  // Where nothing is kept, the beginning is now; but to look for a topic from there takes long.
  const cursor = newest.length ? read(newest.at(-1)).cursor : topic ? "end" : "beginning";
  const stream = await ask(`/events/stream?${query}cursor=${encodeURIComponent(cursor)}`, { signal });
  if (!stream.ok) throw new Error();
  // The clock of the service, as good as its answer tells it.
  const ahead = (Date.parse(listed.headers.get("date")) || Date.now()) - Date.now();
  const began = performance.now();
  let rest = "";
  let last = "";
  for await (const chunk of chunks(stream.body.pipeThrough(new TextDecoderStream()))) {
    const blocks = (rest + chunk).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) take((last = lines.map((line) => line.slice(5).trimStart()).join("\n")));
    }
    draw();
    if (last && !paused && performance.now() - began > MAX_BEHIND_MILLISECONDS) {
      const behind = Date.now() + ahead - Date.parse(read(last).received_at);
      if (behind > MAX_BEHIND_MILLISECONDS) {
        // More comes than can be followed, and what is shown here is to be of now.
        skipped = new Date().toLocaleTimeString("en-GB");
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

function take(text) {
  if (filter && !matches(read(text))) return;
  waiting.push(text);
  if (paused) missed++;
  if (waiting.length > 2 * ROWS) waiting = waiting.slice(-ROWS);
}

function matches(event) {
  const has = (text) => text.toLowerCase().includes(filter);
  return !filter || has(event.topic) || has(event.event_id) || has(event.source) || has(event.payload);
}

function draw() {
  if (paused) pause.textContent = `Resume (${whole(missed)})`;
  if (drawing || paused) return;
  drawing = setTimeout(() => requestAnimationFrame(() => {
    drawing = 0;
    if (!paused) drawNow();
  }), DRAW_MILLISECONDS);
}

function drawNow() {
  if (anew) {
    kept = [];
    list.replaceChildren();
    anew = false;
  }
  const coming = waiting.slice(-ROWS).map((text) => {
    const event = read(text);
    // What is left of a cut text would keep all of it in memory.
    const payload = JSON.parse(JSON.stringify(cut(event.payload, MAX_PAYLOAD)));
    return { ...event, payload, row: null };
  });
  waiting = [];
  missed = 0;
  kept.push(...coming);
  const gone = kept.splice(0, Math.max(0, kept.length - ROWS)).map((event) => event.row).filter(Boolean);
  const rows = kept.filter((event) => !event.row).map((event) => {
    event.row = fill(gone.pop() ?? blank(), event);
    event.row.hidden = !matches(event);
    return event.row;
  });
  gone.forEach((row) => row.remove());
  list.prepend(...rows.reverse());
  tell();
}

function tell() {
  const shown = kept.filter((event) => !event.row.hidden).length;
  find("tail-none").hidden = shown > 0;
  find("tail-none").textContent = filter || find("tail-topic").value
    ? "No event like that came lately." : "Events appear here as soon as they are kept.";
  const note = skipped ? `; too many to follow, skipped ahead at ${skipped}` : "";
  find("tail-note").textContent = shown ? `the newest ${shown}${note}` : "";
  list.hidden = !shown;
}

function blank() {
  const row = element("li");
  const id = element("button", "link id");
  id.type = "button";
  row.append(element("time"), element("span", "topic"), id, element("span", "source"), element("code"));
  return row;
}

function fill(row, event) {
  const [time, topic, id, source, payload] = row.children;
  time.textContent = clock.format(new Date(event.received_at));
  time.dateTime = event.received_at;
  topic.textContent = topic.title = event.topic;
  id.textContent = event.event_id;
  id.title = "Find this event";
  source.textContent = source.title = event.source;
  payload.textContent = event.payload;
  return row;
}

list.addEventListener("click", (click) => {
  const event = click.target.closest("button") && kept.find((event) => event.row.contains(click.target));
  if (event) lookUp(event.topic, event.event_id);
});
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", paused);
  pause.textContent = "Pause";
  draw();
});
find("tail-filter").addEventListener("input", (input) => {
  filter = input.target.value.toLowerCase();
  for (const event of kept) event.row.hidden = !matches(event);
  tell();
});
find("tail-topic").addEventListener("change", start);
find("tail-form").addEventListener("submit", (submitted) => submitted.preventDefault());

/** Shows the newest events of one topic. */
export function showTopic(topic) {
  find("tail-topic").value = topic;
  start();
  find("tail").scrollIntoView({ block: "nearest" });
}
