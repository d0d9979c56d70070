// The page: polls the counters every second, and shows them.

import { fetchWithToken, hideTokenForm, showTokenForm } from "./access.js";
import { element, find, formatCount } from "./event.js";
import * as rates from "./rates.js";
import * as tail from "./tail.js";

const TOPICS = 20;
const POLL_MILLISECONDS = 1_000;
const TIMEOUT_MILLISECONDS = 5_000;

let timer = 0;
let generation = 0;
let rows = [];

async function poll() {
  const current = ++generation;
  const began = performance.now();
  let stats = null;
  let denied = false;
  let error = "The service is not responding. The values shown are outdated; the page reconnects automatically.";
  try {
    const response = await fetchWithToken(`/stats?max_topics=${TOPICS}`, { timeout: TIMEOUT_MILLISECONDS });
    denied = response.status === 403;
    if (response.ok) stats = await response.json();
    else error = `The counters are unavailable: ${(await response.json()).error}.`;
  } catch { /* The notice shows the error. */ }
  // The page was hidden in the meantime, and may be visible again.
  if (current !== generation) return;
  if (stats) show(stats);
  if (stats) hideTokenForm();
  else if (denied) showTokenForm("Your token has no grant to read all topics. Sign in with another token.");
  rates.add(stats);
  showState(stats ? "live" : denied ? "denied" : "unavailable", error);
  timer = setTimeout(poll, Math.max(100, POLL_MILLISECONDS - (performance.now() - began)));
}

function showState(state, error) {
  find("state").dataset.state = state;
  find("state").textContent = state;
  document.body.classList.toggle("stale", state !== "live");
  const notice = find("notice");
  notice.hidden = state === "live";
  // Screen readers announce each change: do not repeat the same text every second.
  if (!notice.hidden && notice.textContent !== error) notice.textContent = error;
}

function show(stats) {
  const setText = (id, text) => { find(id).textContent = text; };
  setText("received", formatCount(stats.received));
  setText("unique", formatCount(stats.unique_processed));
  setText("duplicates", formatCount(stats.duplicate_dropped));
  setText("duplicates-note", stats.received ? `${duplicateShare(stats)} of received, dropped` : "dropped");
  setText("conflicts", formatCount(stats.conflicts));
  setText("topic-count", formatCount(stats.topics_active));
  setText("uptime", formatDuration(stats.uptime_seconds));
  showTopics(stats);
  showEmpty(stats.received === 0);
}

const duplicateShare = (counters) => `${((100 * counters.duplicate_dropped) / counters.received).toFixed(1)} %`;

function formatDuration(seconds) {
  const units = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0 s";
  return units.slice(first, first + 2).map(([unit, size], index) =>
    `${Math.floor(index ? (seconds % units[first][1]) / size : seconds / size)} ${unit}`).join(" ");
}

function showTopics(stats) {
  const topics = stats.by_topic;
  while (rows.length < topics.length) rows.push(topicRow());
  rows.splice(topics.length).forEach((row) => row.remove());
  topics.forEach((topic, index) => {
    const [name, received, unique, duplicates, conflicts] = rows[index].cells;
    if (name.firstChild.textContent !== topic.topic) name.firstChild.textContent = name.firstChild.title = topic.topic;
    received.textContent = formatCount(topic.received);
    unique.textContent = formatCount(topic.unique_processed);
    duplicates.firstChild.textContent = duplicateShare(topic);
    duplicates.title = `${formatCount(topic.duplicate_dropped)} duplicates`;
    duplicates.lastChild.firstChild.style.width = `${(100 * topic.duplicate_dropped) / topic.received}%`;
    conflicts.textContent = formatCount(topic.conflicts);
  });
  find("topics-none").hidden = topics.length > 0;
  find("topic-table").hidden = topics.length === 0;
  find("topics-note").textContent = stats.topics_active > topics.length
    ? `top ${topics.length} of ${formatCount(stats.topics_active)}` : topics.length ? "by volume" : "";
  const names = find("topic-names");
  if ([...names.children].map((option) => option.value).join("\0") !== stats.topics.join("\0")) {
    names.replaceChildren(...stats.topics.map((topic) => Object.assign(element("option"), { value: topic })));
  }
}

function topicRow() {
  const row = element("tr");
  const name = element("button", "link");
  name.type = "button";
  name.addEventListener("click", () => tail.showTopic(name.textContent));
  const rate = element("span", "rate");
  rate.append(element("span"));
  const cells = ["", "n", "n wide", "n", "n wide"].map((className) => element("td", className));
  cells[0].append(name);
  cells[3].append(element("span"), rate);
  row.append(...cells);
  find("topic-rows").append(row);
  return row;
}

function showEmpty(empty) {
  if (document.body.classList.contains("empty") === empty) return;
  document.body.classList.toggle("empty", empty);
  find("calls-title").textContent = empty ? "No events yet: publish the first one" : "Try it";
  find("calls-note").textContent = empty
    ? "Publish it twice: the second one is a duplicate."
    : "Publish the same event twice: the second one is a duplicate.";
  // Move the element instead of styling it, so that screen readers read the examples first, too.
  if (empty) find("main").prepend(find("calls"));
  else find("main").append(find("calls"));
}

function showCalls() {
  const { host, origin, protocol } = location;
  const event = `{"topic":"orders","event_id":"1","source":"me","payload":{"n":1}}`;
  // The CLI uses plaintext for an address without a scheme.
  const [plain, address] = protocol === "http:" ? ["-plaintext ", host] : ["", origin];
  const service = "event_aggregator.v1.EventAggregatorService";
  const calls = [
    ["Publish with curl", `curl -H 'content-type: application/json' -d '${event}' ${origin}/publish`],
    ["Publish with grpcurl", `grpcurl ${plain}-d '{"events":[${event}]}' ${host} ${service}/Publish`],
    ["Subscribe with curl", `curl -N '${origin}/events/stream?cursor=beginning'`],
    ["Simulate a producer", `event-aggregator publish --addr ${address} --simulate 20000 --duplicates 0.3 --topics 5`],
  ];
  find("call-list").append(...calls.map(([title, text]) => {
    const call = element("div", "call");
    const code = element("pre", "", text);
    const copy = element("button", "", "Copy");
    copy.type = "button";
    copy.setAttribute("aria-label", `Copy: ${title}`);
    copy.addEventListener("click", () => copyText(code, copy));
    call.append(element("h3", "", title), copy, code);
    return call;
  }));
}

async function copyText(code, button) {
  let status = "Copied";
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    // The clipboard API is available only on localhost and over TLS.
    getSelection().selectAllChildren(code);
    if (!document.execCommand("copy")) status = "Selected";
  }
  button.textContent = find("said").textContent = status;
  setTimeout(() => { button.textContent = "Copy"; find("said").textContent = ""; }, 1_500);
}

function onVisibilityChange() {
  clearTimeout(timer);
  generation++;
  if (document.hidden) {
    tail.stop();
    // A hidden page does not poll, so the chart has a gap.
    rates.add(null);
  } else {
    poll();
    tail.start();
  }
}

find("host").textContent = location.host;
showCalls();
document.addEventListener("visibilitychange", onVisibilityChange);
onVisibilityChange();
