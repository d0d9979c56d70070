// The page: asks for the counters each second, and shows them.

import { ask, offer, withdraw } from "./access.js";
import { element, find, whole } from "./event.js";
import * as rates from "./rates.js";
import * as tail from "./tail.js";

const TOPICS = 20;
const POLL_MILLISECONDS = 1_000;
const PATIENCE_MILLISECONDS = 5_000;

let timer = 0;
let round = 0;
let rows = [];

async function poll() {
  const mine = ++round;
  const began = performance.now();
  let stats = null;
  let denied = false;
  let fault = "The service does not answer. What you see is from before; the page goes on by itself when it is back.";
  try {
    const answer = await ask(`/stats?max_topics=${TOPICS}`, { patience: PATIENCE_MILLISECONDS });
    denied = answer.status === 403;
    if (answer.ok) stats = await answer.json();
    else fault = `The service runs, but cannot say what it counted: ${(await answer.json()).error}.`;
  } catch { /* Told below. */ }
  // Meanwhile the page was hidden, and perhaps shown again.
  if (mine !== round) return;
  if (stats) show(stats);
  if (stats) withdraw();
  else if (denied) offer("Your token may not read all topics; another one may.");
  rates.add(stats);
  tellState(stats ? "live" : denied ? "denied" : "away", fault);
  timer = setTimeout(poll, Math.max(100, POLL_MILLISECONDS - (performance.now() - began)));
}

function tellState(state, fault) {
  find("state").dataset.state = state;
  find("state").textContent = state;
  document.body.classList.toggle("away", state !== "live");
  const notice = find("notice");
  notice.hidden = state === "live";
  // Said once, not each second.
  if (!notice.hidden && notice.textContent !== fault) notice.textContent = fault;
}

function show(stats) {
  const put = (id, text) => { find(id).textContent = text; };
  put("received", whole(stats.received));
  put("unique", whole(stats.unique_processed));
  put("duplicates", whole(stats.duplicate_dropped));
  put("duplicates-note", stats.received ? `${share(stats)} of all, dropped` : "dropped");
  put("conflicts", whole(stats.conflicts));
  put("topic-count", whole(stats.topics_active));
  put("uptime", duration(stats.uptime_seconds));
  showTopics(stats);
  showEmpty(stats.received === 0);
}

const share = (counted) => `${((100 * counted.duplicate_dropped) / counted.received).toFixed(1)} %`;

function duration(seconds) {
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
    received.textContent = whole(topic.received);
    unique.textContent = whole(topic.unique_processed);
    duplicates.firstChild.textContent = share(topic);
    duplicates.title = `${whole(topic.duplicate_dropped)} duplicates`;
    duplicates.lastChild.firstChild.style.width = `${(100 * topic.duplicate_dropped) / topic.received}%`;
    conflicts.textContent = whole(topic.conflicts);
  });
  find("topics-none").hidden = topics.length > 0;
  find("topic-table").hidden = topics.length === 0;
  find("topics-note").textContent = stats.topics_active > topics.length
    ? `the largest ${topics.length} of ${whole(stats.topics_active)}` : topics.length ? "by volume" : "";
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
  find("calls-title").textContent = empty ? "No events yet. Publish the first one" : "Try it";
  find("calls-note").textContent = empty
    ? "Send it twice: the second time it is a duplicate." : "Publish an event, twice: the second time it is a duplicate.";
  // Also for those who hear the page, the calls come first then.
  if (empty) find("main").prepend(find("calls"));
  else find("main").append(find("calls"));
}

function showCalls() {
  const { host, origin, protocol } = location;
  const event = `{"topic":"orders","event_id":"1","source":"me","payload":{"n":1}}`;
  // Without a scheme, our commands speak plaintext.
  const [plain, address] = protocol === "http:" ? ["-plaintext ", host] : ["", origin];
  const service = "event_aggregator.v1.EventAggregatorService";
  const calls = [
    ["Publish with curl", `curl -H 'content-type: application/json' -d '${event}' ${origin}/publish`],
    ["Publish with grpcurl", `grpcurl ${plain}-d '{"events":[${event}]}' ${host} ${service}/Publish`],
    ["Follow with curl", `curl -N '${origin}/events/stream?cursor=beginning'`],
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
  let said = "Copied";
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    // Only a page from this machine or over TLS may write there by itself.
    getSelection().selectAllChildren(code);
    if (!document.execCommand("copy")) said = "Selected";
  }
  button.textContent = find("said").textContent = said;
  setTimeout(() => { button.textContent = "Copy"; find("said").textContent = ""; }, 1_500);
}

function wake() {
  clearTimeout(timer);
  round++;
  if (document.hidden) {
    tail.stop();
    // Nobody looked, so nothing is known of that time.
    rates.add(null);
  } else {
    poll();
    tail.start();
  }
}

find("host").textContent = location.host;
showCalls();
document.addEventListener("visibilitychange", wake);
wake();
