// Events and duplicates per second: how much the counters grew between two answers.

import { find, whole } from "./event.js";

const SECONDS = 300;
const SECONDS_AT_FIRST = 60;

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const rate = (number) => (number == null ? "–" : whole(Math.round(number)));

const times = [], received = [], duplicates = [];
let last = null;
let chart = null;

/** Takes in the counters of now; null where there are none, which leaves a gap. */
export function add(counters) {
  const now = Date.now() / 1000, at = performance.now() / 1000;
  let rates = [null, null];
  // Smaller ones are those of another store.
  if (counters && last && counters.received >= last.received) {
    const growth = (name) => (counters[name] - last[name]) / (at - last.at);
    rates = [growth("received"), growth("duplicate_dropped")];
  }
  last = counters && { ...counters, at };
  times.push(now);
  received.push(rates[0]);
  duplicates.push(rates[1]);
  while (times[0] < now - SECONDS - 5) [times, received, duplicates].forEach((list) => list.shift());
  draw();
  if (chart?.cursor.idx == null) tell(times.length - 1);
}

/** From when to when the chart goes: it grows with what is known, up to five minutes. */
const span = (now) => [Math.max(now - SECONDS, Math.min(times[0] ?? now, now - SECONDS_AT_FIRST)), now];

function tell(index) {
  find("rate-received").textContent = rate(received[index]);
  find("rate-duplicates").textContent = rate(duplicates[index]);
}

function draw() {
  chart ??= make();
  chart.setData([times, received, duplicates]);
}

function make() {
  const place = find("chart");
  const line = (name, fill) => ({
    stroke: () => color(name), width: 2, points: { show: false },
    fill: fill && (() => `color-mix(in srgb, ${color(name)} 10%, transparent)`),
  });
  const font = "12px system-ui, sans-serif";
  const axis = { stroke: () => color("--soft"), font, ticks: { show: false }, grid: { stroke: () => color("--grid"), width: 1 } };
  const clock = (time) => new Date(time * 1000).toLocaleTimeString("en-GB");
  const made = new uPlot({
    width: place.clientWidth, height: place.clientHeight,
    padding: [10, 4, 0, 0], legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { range: () => span(times.at(-1) ?? Date.now() / 1000) },
      y: { range: (_, __, most) => [0, Math.max(10, (most ?? 0) * 1.1)] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 28, space: 90, incrs: [10, 30, 60], values: (_, at) => at.map(clock) },
      { ...axis, size: 48, space: 32, values: (_, at) => at.map((value) => compact.format(value)) },
    ],
    series: [{}, line("--received", true), line("--duplicates", true)],
    hooks: { setCursor: [(plot) => tell(plot.cursor.idx ?? times.length - 1)] },
  }, [times, received, duplicates], place);
  new ResizeObserver(() => made.setSize({ width: place.clientWidth, height: place.clientHeight })).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => made.redraw());
  return made;
}
