// Chart of events and duplicates per second: the differences between consecutive counters.

import { find, formatCount } from "./event.js";

const SECONDS = 300;
const MIN_SECONDS = 60;

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const formatRate = (number) => (number == null ? "–" : formatCount(Math.round(number)));

const times = [], received = [], duplicates = [];
let last = null;
let chart = null;

/** Adds the current counters to the chart; null, if they are unknown, leaves a gap. */
export function add(counters) {
  const now = Date.now() / 1000, seconds = performance.now() / 1000;
  let rates = [null, null];
  // A smaller counter belongs to another store.
  if (counters && last && counters.received >= last.received) {
    const growth = (name) => (counters[name] - last[name]) / (seconds - last.seconds);
    rates = [growth("received"), growth("duplicate_dropped")];
  }
  last = counters && { ...counters, seconds };
  times.push(now);
  received.push(rates[0]);
  duplicates.push(rates[1]);
  while (times[0] < now - SECONDS - 5) [times, received, duplicates].forEach((list) => list.shift());
  render();
  if (chart?.cursor.idx == null) showRates(times.length - 1);
}

/** The time range of the chart: one minute at first, and up to five minutes with more data. */
const span = (now) => [Math.max(now - SECONDS, Math.min(times[0] ?? now, now - MIN_SECONDS)), now];

function showRates(index) {
  find("rate-received").textContent = formatRate(received[index]);
  find("rate-duplicates").textContent = formatRate(duplicates[index]);
}

function render() {
  chart ??= createChart();
  chart.setData([times, received, duplicates]);
}

function createChart() {
  const container = find("chart");
  const line = (name, fill) => ({
    stroke: () => color(name), width: 2, points: { show: false },
    fill: fill && (() => `color-mix(in srgb, ${color(name)} 10%, transparent)`),
  });
  const font = "12px system-ui, sans-serif";
  const axis = { stroke: () => color("--soft"), font, ticks: { show: false }, grid: { stroke: () => color("--grid"), width: 1 } };
  const formatTime = (time) => new Date(time * 1000).toLocaleTimeString("en-GB");
  const plot = new uPlot({
    width: container.clientWidth, height: container.clientHeight,
    padding: [10, 4, 0, 0], legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { range: () => span(times.at(-1) ?? Date.now() / 1000) },
      y: { range: (_, __, max) => [0, Math.max(10, (max ?? 0) * 1.1)] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 28, space: 90, incrs: [10, 30, 60], values: (_, ticks) => ticks.map(formatTime) },
      { ...axis, size: 48, space: 32, values: (_, ticks) => ticks.map((value) => compact.format(value)) },
    ],
    series: [{}, line("--received", true), line("--duplicates", true)],
    hooks: { setCursor: [(plot) => showRates(plot.cursor.idx ?? times.length - 1)] },
  }, [times, received, duplicates], container);
  new ResizeObserver(() => plot.setSize({ width: container.clientWidth, height: container.clientHeight })).observe(container);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot.redraw());
  return plot;
}
