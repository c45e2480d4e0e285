// The live view: asks /streams, /streams/<id>, /healthz and /readyz about once a second and draws what they say.
// Stream names come from outside, so text only ever enters the page through textContent and setAttribute.
"use strict";

const POLL_MS = 1000;
const HEALTH_MS = 2000;
const SLOWEST_MS = 8000;
const SPARK_POINTS = 60;
const SVG = "http://www.w3.org/2000/svg";

const $ = (id) => document.getElementById(id);
const rows = new Map(); // stream id -> { tr, parts, data, values, seq, seen }
let selected = null; // stream id shown in the detail card
let chosen = false; // true once a person has chosen or closed a stream
let forecasts = []; // forecasts of the selected stream seen so far, oldest first
let detail = null;
let cursor = null; // index of the point under pointer or keyboard
let connection = "connecting";
let readiness = { ok: true, reason: "" };

// ---- small helpers

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function shape(tag, attributes = {}) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

function number(value) {
  return isNumber(value) ? plainNumber(value).replace("-", "−") : "–";
}

function plainNumber(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return value.toLocaleString("en", { notation: "compact", maximumFractionDigits: 2 });
  if (size !== 0 && size < 1e-3) return value.toExponential(1);
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : 3;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function percent(value, digits = 0) {
  return isNumber(value) ? `${(value * 100).toFixed(digits)} %` : "–";
}

function againstNaive(ratio) {
  if (!isNumber(ratio)) return { text: "–", tone: "" };
  const gain = Math.round((ratio - 1) * 100);
  const text = gain === 0 ? "±0 %" : `${gain < 0 ? "−" : "+"}${Math.abs(gain)} %`;
  return { text, tone: gain < 0 ? "good" : gain > 0 ? "bad" : "" };
}

function duration(seconds) {
  if (!isNumber(seconds)) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${+seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${+(seconds / 3600).toFixed(1)} h`;
  return `${+(seconds / 86400).toFixed(1)} d`;
}

function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value.toFixed(unit && value < 100 ? 1 : 0)} ${units[unit]}`;
}

// "readings_per_second": 812.4 -> ["readings per second", "812"]; the end of a name tells its unit
function labelled(name, value) {
  let text = String(value ?? "–");
  let label = name;
  if (isNumber(value)) {
    text = Number.isInteger(value) ? value.toLocaleString("en") : number(value);
    if (/_seconds$/.test(name)) { label = name.replace(/_seconds$/, ""); text = duration(value); }
    else if (/_bytes$/.test(name)) { label = name.replace(/_bytes$/, ""); text = bytes(value); }
    else if (/_ratio$/.test(name)) { label = name.replace(/_ratio$/, ""); text = percent(value, 1); }
    else if (/_per_second$/.test(name)) text = value >= 10 ? Math.round(value).toLocaleString("en") : value.toFixed(1);
  } else if (Array.isArray(value)) {
    text = value.map((item) => (isNumber(item) ? number(item) : String(item ?? "–"))).join("  ");
  }
  return [label.replaceAll("_", " "), text];
}

function clockTime(ms, step = 0) {
  if (!Number.isFinite(ms)) return "–";
  const iso = new Date(ms).toISOString();
  if (step >= 86400e3) return iso.slice(0, 10);
  if (step >= 3600e3) return `${iso.slice(5, 10)} ${iso.slice(11, 16)}`;
  return step >= 60e3 ? iso.slice(11, 16) : iso.slice(11, 19);
}

async function ask(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(5000), cache: "no-store" });
  const body = await response.json();
  return { status: response.status, ok: response.ok, body };
}

// Runs `work` again after `pause`, later after failures, and not at all while nobody looks.
function repeat(work, pause) {
  let failures = 0;
  let timer = 0;
  let running = false;
  let again = false;
  const turn = async () => {
    clearTimeout(timer);
    if (running) { again = true; return; }
    if (document.hidden) return;
    running = true;
    failures = (await work()) ? 0 : failures + 1;
    running = false;
    timer = setTimeout(turn, again ? 0 : Math.min(pause * 2 ** failures, SLOWEST_MS));
    again = false;
  };
  document.addEventListener("visibilitychange", turn);
  turn();
  return turn;
}

function showState() {
  const state = $("state");
  const waiting = connection === "live" && !readiness.ok;
  state.dataset.state = waiting ? "waiting" : connection === "busy" ? "waiting" : connection;
  const words = { live: "live", busy: "engine busy, asking again", lost: "connection lost, trying again", connecting: "connecting" };
  setText(state, waiting ? `not ready${readiness.reason ? `: ${readiness.reason}` : ""}` : words[connection]);
}

// ---- scales and paths

function extent(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (!isNumber(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.01 || 1;
  return [low - room, high + room];
}

function linePath(points) {
  let path = "";
  let pen = false;
  points.forEach(([x, y], i) => {
    if (!isNumber(y)) { pen = false; return; }
    const alone = !pen && !isNumber(points[i + 1]?.[1]);
    path += `${pen ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${alone ? "h.1" : ""}`;
    pen = true;
  });
  return path;
}

function areaPath(lower, upper) {
  if (!lower.length) return "";
  const point = ([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`;
  return `M${lower.map(point).join("L")}L${[...upper].reverse().map(point).join("L")}Z`;
}

// Forecast rows [H][Q] into what is drawn: nested bands, outermost first, and the median, both from `start` on.
function fan(forecast, x, y, start) {
  const levels = forecast.quantile_levels;
  const column = (q) => [...start, ...forecast.quantiles.map((row, k) => [x(forecast.leads[k]), y(row[q])])];
  const bands = [];
  for (let q = 0; q < Math.floor(levels.length / 2); q += 1) bands.push(areaPath(column(q), column(levels.length - 1 - q)));
  const middle = levels.indexOf(0.5);
  return { bands, median: linePath(column(middle < 0 ? Math.floor(levels.length / 2) : middle)) };
}

const horizon = (forecast) => forecast.leads.at(-1);
const hasForecast = (data) => Boolean(data?.forecast?.quantiles?.length);

function median(forecast, row) {
  const middle = forecast.quantile_levels.indexOf(0.5);
  return row[middle < 0 ? Math.floor(row.length / 2) : middle];
}

// ---- the table

// Long names break after a slash rather than at a hyphen.
function breakable(id) {
  return id.split(/(?<=\/)/).flatMap((part) => [part.length > 24 ? part : element("span", { class: "segment" }, part), element("wbr")]);
}

function makeRow(id) {
  const parts = {
    link: element("a", { href: `#${encodeURIComponent(id)}` }, ...breakable(id)),
    status: element("span", { class: "status" }),
    spark: shape("svg", { class: "spark", viewBox: "0 0 300 40", preserveAspectRatio: "none", "aria-hidden": "true" }),
    value: element("td", { class: "num value", role: "cell" }),
    ahead: element("td", { class: "num", role: "cell" }),
    naive: element("td", { class: "num gauge", role: "cell", "data-label": "vs naive" }),
    coverage: element("td", { class: "num gauge last", role: "cell", "data-label": "coverage" }),
    middle: document.createTextNode(""),
    interval: element("small"),
  };
  parts.ahead.append(parts.middle, parts.interval);
  const tr = element("tr", { role: "row" },
    element("td", { class: "name", role: "cell" }, parts.link, parts.status),
    element("td", { class: "sparkcell", role: "cell" }, parts.spark),
    parts.value, parts.ahead, parts.naive, parts.coverage);
  tr.addEventListener("click", (event) => {
    if (parts.link.contains(event.target)) return;
    location.hash = parts.link.hash;
  });
  const row = { tr, parts, data: null, values: [], seq: null, seen: false };
  rows.set(id, row);
  tr.streamId = id;
  visible.observe(tr);
  return row;
}

const visible = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const row = rows.get(entry.target.streamId);
    if (!row) continue;
    row.seen = entry.isIntersecting;
    if (row.seen) drawSpark(row);
  }
}, { rootMargin: "200px" });

function updateRow(row, data) {
  const changed = row.seq !== data.seq || row.data?.status !== data.status;
  row.data = data;
  if (data.recent?.values) row.values = data.recent.values.slice(-SPARK_POINTS);
  else if (row.seq !== data.seq) row.values = [...row.values, data.value].slice(-SPARK_POINTS);
  row.seq = data.seq;
  const { parts } = row;
  parts.status.dataset.status = data.status;
  setText(parts.status, data.status);
  setText(parts.value, isNumber(data.value) ? number(data.value) : "missing");
  if (hasForecast(data)) {
    const last = data.forecast.quantiles.at(-1);
    setText(parts.middle, number(median(data.forecast, last)));
    setText(parts.interval, `${number(last[0])} … ${number(last.at(-1))}`);
  } else {
    setText(parts.middle, "–");
    setText(parts.interval, "");
  }
  const naive = againstNaive(data.error_vs_naive);
  setText(parts.naive, naive.text);
  parts.naive.className = `num gauge ${naive.tone}`;
  setText(parts.coverage, percent(data.coverage));
  parts.link.title = `${data.stream_id}, last reading ${data.time ?? "unknown"}`;
  if (changed && row.seen) drawSpark(row);
}

function drawSpark(row) {
  const { data, values } = row;
  const forecast = hasForecast(data) ? data.forecast : null;
  const ahead = forecast ? horizon(forecast) : 0;
  const all = forecast ? values.concat(...forecast.quantiles.map((q) => [q[0], q.at(-1)])) : values;
  const [low, high] = extent(all);
  const steps = SPARK_POINTS - 1 + ahead;
  const first = SPARK_POINTS - values.length;
  const x = (i) => 2 + (i / steps) * 296;
  const y = (value) => (isNumber(value) ? 38 - ((value - low) / (high - low)) * 36 : NaN);
  const parts = [];
  if (forecast) {
    const now = values.length && isNumber(values.at(-1)) ? [[x(SPARK_POINTS - 1), y(values.at(-1))]] : [];
    const drawn = fan(forecast, (lead) => x(SPARK_POINTS - 1 + lead), y, now);
    for (const d of drawn.bands) parts.push(shape("path", { class: "fan", d }));
    parts.push(shape("path", { class: "median", d: drawn.median }));
  }
  parts.push(shape("path", { class: "past", d: linePath(values.map((value, i) => [x(first + i), y(value)])) }));
  row.parts.spark.replaceChildren(...parts);
}

function showStreams(found) {
  const kept = new Set(found.map((data) => data.stream_id));
  for (const [id, row] of rows) {
    if (!kept.has(id)) { visible.unobserve(row.tr); row.tr.remove(); rows.delete(id); }
  }
  const body = $("rows");
  found.forEach((data, i) => {
    const row = rows.get(data.stream_id) ?? makeRow(data.stream_id);
    if (body.children[i] !== row.tr) body.insertBefore(row.tr, body.children[i] ?? null);
    updateRow(row, data);
  });
  const sample = found.find(hasForecast);
  setText($("ahead"), sample ? `In ${horizon(sample.forecast)} steps` : "Forecast");
  const limit = Number($("limit").value);
  setText($("count"), found.length >= limit ? `first ${found.length}` : String(found.length));
  $("table").hidden = found.length === 0;
  $("empty").hidden = found.length !== 0;
  const prefix = $("prefix").value;
  setText($("empty"), prefix ? `No stream's name begins with “${prefix}”.` : "No streams yet. Each appears with its first reading.");
  if (!chosen && selected === null && found.length && matchMedia("(min-width: 1180px)").matches) select(found[0].stream_id);
  markSelected();
}

async function pollStreams() {
  const query = new URLSearchParams({ limit: $("limit").value, prefix: $("prefix").value, sort: $("sort").value });
  try {
    const reply = await ask(`streams?${query}`);
    connection = reply.ok ? "live" : reply.status === 503 ? "busy" : "lost";
    if (reply.ok) showStreams(reply.body.streams);
    if (reply.ok && selected !== null) await pollDetail();
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof DOMException || error instanceof SyntaxError)) throw error;
    connection = "lost";
  }
  showState();
  return connection === "live";
}

// ---- header and events

async function pollHealth() {
  try {
    const [health, ready] = await Promise.all([ask("healthz"), ask("readyz")]);
    readiness = ready.body.error ? { ok: false, reason: ready.body.error } : ready.body;
    if (!health.body.error && !health.body.ok) readiness = health.body;
    const details = health.body.details ?? {};
    const pairs = Object.entries(details.summary ?? {}).map(([name, value]) => labelled(name, value));
    fillPairs($("summary"), pairs);
    showEvents(details.events ?? []);
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof DOMException || error instanceof SyntaxError)) throw error;
    return false;
  }
  showState();
  return true;
}

function fillPairs(list, pairs) {
  while (list.children.length > pairs.length) list.lastElementChild.remove();
  pairs.forEach(([label, text], i) => {
    const item = list.children[i] ?? list.appendChild(element("div", {}, element("dt"), element("dd")));
    setText(item.firstElementChild, label);
    setText(item.lastElementChild, text);
  });
}

function showEvents(events) {
  const list = $("events");
  const newest = events.slice(-12).reverse();
  const key = JSON.stringify(newest);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...newest.map((event) => element("li", {},
    element("time", { datetime: event.time, title: event.time }, clockTime(Date.parse(event.time))),
    element("span", {}, event.text))));
  if (!newest.length) list.append(element("li", { class: "muted" }, "Nothing yet. Trainings and new models are told here."));
}

// ---- one stream

function select(id) {
  if (id === selected) return;
  selected = id;
  forecasts = [];
  detail = null;
  cursor = null;
  $("detail").hidden = true;
  markSelected();
}

function markSelected() {
  document.querySelector("main").classList.toggle("split", selected !== null);
  for (const [id, row] of rows) row.tr.setAttribute("aria-selected", String(id === selected));
}

function followHash() {
  let id = null;
  try {
    id = location.hash.length > 1 && location.hash !== "#streams" ? decodeURIComponent(location.hash.slice(1)) : null;
  } catch (error) {
    if (!(error instanceof URIError)) throw error; // a fragment that is not percent-encoding names no stream
  }
  if (id === null) return;
  chosen = true;
  select(id);
  pollDetail().then(() => {
    $("detail-title").focus({ preventScroll: true });
    if (!matchMedia("(min-width: 1180px)").matches) $("detail").scrollIntoView({ block: "start" });
  });
}

async function pollDetail() {
  const id = selected;
  const reply = await ask(`streams/${encodeURIComponent(id)}`);
  if (id !== selected) return; // another stream was chosen meanwhile
  $("detail").hidden = false;
  setText($("detail-title"), id);
  $("detail-body").hidden = reply.status === 404;
  if (reply.status === 404) { setText($("detail-line"), "This stream is not known here."); return; }
  if (!reply.ok) return;
  detail = reply.body;
  if (hasForecast(detail) && forecasts.at(-1)?.origin !== detail.forecast.origin) forecasts = [...forecasts, detail.forecast].slice(-400);
  showDetail();
}

function showDetail() {
  const line = $("detail-line");
  const status = element("span", { class: "status", "data-status": detail.status }, detail.status);
  const time = detail.time ? `${detail.time.slice(0, 10)} ${detail.time.slice(11, 19)}` : "unknown";
  line.replaceChildren(status, element("span", {}, `last reading ${time}`), element("span", {}, `model ${detail.model ?? "none"}`));
  const naive = againstNaive(detail.error_vs_naive);
  const levels = detail.forecast?.quantile_levels ?? [];
  const promised = levels.length > 1 ? `, ${percent(levels.at(-1) - levels[0])} promised` : "";
  fillPairs($("facts"), [
    ["value", isNumber(detail.value) ? number(detail.value) : "missing"],
    ["error against naive", naive.text],
    [`coverage${promised}`, percent(detail.coverage)],
    ["step", duration(detail.step_seconds)],
    ["season", detail.season_steps ? `${detail.season_steps} steps` : "none"],
    ["readings", isNumber(detail.seq) ? detail.seq.toLocaleString("en") : "–"],
  ]);
  $("facts").children[1].lastElementChild.className = naive.tone;
  showExperts(Object.entries(detail.experts ?? {}).sort((a, b) => b[1] - a[1]));
  showCalibration(detail.calibration);
  showLeads();
  drawChart();
}

function showExperts(weights) {
  const list = $("experts");
  while (list.children.length > weights.length) list.lastElementChild.remove();
  weights.forEach(([name, weight], i) => {
    const item = list.children[i] ?? list.appendChild(
      element("li", {}, element("span"), element("span", { class: "bar", "aria-hidden": "true" }, element("i")), element("span", { class: "num" })));
    setText(item.children[0], name.replaceAll("_", " "));
    item.children[1].firstElementChild.style.width = `${Math.max(0, Math.min(1, weight)) * 100}%`;
    setText(item.children[2], percent(weight));
  });
  list.parentElement.hidden = weights.length === 0;
}

function showCalibration(calibration) {
  const pairs = calibration !== null && typeof calibration === "object" && !Array.isArray(calibration)
    ? Object.entries(calibration).map(([name, value]) => labelled(name, value))
    : calibration === null || calibration === undefined ? [] : [labelled("offsets", calibration)];
  fillPairs($("calibration"), pairs);
  $("calibration").parentElement.hidden = pairs.length === 0;
}

function showLeads() {
  const table = $("leads");
  if (!hasForecast(detail) || !table.closest("details").open) return;
  const { origin, leads, quantile_levels: levels, quantiles } = detail.forecast;
  const step = detail.step_seconds * 1000;
  const head = element("tr", {}, ...["lead", "time", ...levels.map((q) => percent(q))].map((text) => element("th", { scope: "col" }, text)));
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...quantiles.map((row, k) => element("tr", {},
    ...[String(leads[k]), clockTime(Date.parse(origin) + leads[k] * step, step / 4), ...row.map(number)].map((text) => element("td", {}, text)))));
}

// ---- the big chart

function niceStep(span, count, steps) {
  return steps.find((step) => span / step <= count) ?? steps.at(-1);
}

function valueTicks(low, high, count) {
  const power = 10 ** Math.floor(Math.log10((high - low) / count));
  const step = niceStep(high - low, count, [1, 2, 5, 10].map((m) => m * power));
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) ticks.push(tick);
  return { ticks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000]
  .map((seconds) => seconds * 1000);

function chartPoints() {
  const times = (detail.recent?.times ?? []).map((time) => (typeof time === "number" ? time * 1000 : Date.parse(time)));
  const points = times.map((time, i) => ({ time, value: detail.recent.values[i] }));
  if (hasForecast(detail)) {
    const origin = Date.parse(detail.forecast.origin);
    const keep = Math.max(60, 10 * horizon(detail.forecast));
    points.splice(0, Math.max(0, points.length - keep));
    detail.forecast.quantiles.forEach((row, k) => {
      const lead = detail.forecast.leads[k];
      points.push({ time: origin + lead * detail.step_seconds * 1000, row, lead });
    });
  }
  return points;
}

// What was forecast one horizon ago, if this page was open then: the judge of the fan that is drawn now.
function earlierForecast(points) {
  if (!hasForecast(detail)) return null;
  const span = horizon(detail.forecast) * detail.step_seconds * 1000;
  const before = Date.parse(detail.forecast.origin) - span;
  const old = forecasts.filter((forecast) => Date.parse(forecast.origin) <= before + 1).at(-1);
  return old && Date.parse(old.origin) >= points[0].time ? old : null;
}

function drawChart() {
  const holder = $("chart");
  const width = holder.clientWidth;
  const height = holder.clientHeight;
  const points = chartPoints();
  if (points.length < 2 || width < 50) return;
  const ghost = earlierForecast(points);
  $("ghost-key").hidden = !ghost;
  const all = points.flatMap((p) => (p.row ? [p.row[0], p.row.at(-1)] : [p.value]));
  const [low, high] = extent(ghost ? all.concat(...ghost.quantiles.map((row) => [row[0], row.at(-1)])) : all);
  const { ticks, digits } = valueTicks(low, high, Math.max(3, Math.floor(height / 55)));
  const labels = ticks.map((tick) => tick.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  const box = { left: 10 + 6.6 * Math.max(...labels.map((label) => label.length)), right: width - 10, top: 8, bottom: height - 22 };
  const [from, to] = [points[0].time, points.at(-1).time];
  const x = (time) => box.left + ((time - from) / (to - from || 1)) * (box.right - box.left);
  const y = (value) => (isNumber(value) ? box.bottom - ((value - low) / (high - low)) * (box.bottom - box.top) : NaN);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}` });
  const add = (tag, attributes, text) => { const node = svg.appendChild(shape(tag, attributes)); if (text) node.textContent = text; };

  ticks.forEach((tick, i) => {
    add("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) });
    add("text", { x: box.left - 6, y: y(tick) + 4, "text-anchor": "end" }, labels[i]);
  });
  const step = niceStep(to - from, Math.max(2, Math.floor((box.right - box.left) / 95)), TIME_STEPS);
  for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
    if (x(time) > box.left + 20 && x(time) < box.right - 20) add("text", { x: x(time), y: height - 5, "text-anchor": "middle" }, clockTime(time, step));
  }
  if (ghost) {
    const origin = Date.parse(ghost.origin);
    const drawn = fan(ghost, (lead) => x(origin + lead * detail.step_seconds * 1000), y, []);
    if (drawn.bands.length) add("path", { class: "ghostband", d: drawn.bands[0] });
    add("path", { class: "ghost", d: drawn.median });
  }
  const past = points.filter((p) => !p.row);
  const last = past.filter((p) => isNumber(p.value)).at(-1);
  if (hasForecast(detail)) {
    const origin = Date.parse(detail.forecast.origin);
    const start = last && last.time === origin ? [[x(origin), y(last.value)]] : [];
    const drawn = fan(detail.forecast, (lead) => x(origin + lead * detail.step_seconds * 1000), y, start);
    for (const d of drawn.bands) add("path", { class: "fan", d });
    add("line", { class: "now", x1: x(origin), x2: x(origin), y1: box.top, y2: box.bottom });
    add("path", { class: "median", d: drawn.median });
  }
  add("path", { class: "past", d: linePath(past.map((p) => [x(p.time), y(p.value)])) });
  if (last) add("circle", { class: "dot", cx: x(last.time), cy: y(last.value), r: 4 });

  const tip = cursor === null ? null : pointTip(points[Math.min(cursor, points.length - 1)], x, box, width);
  if (tip) add("line", { class: "cursor", x1: tip.x, x2: tip.x, y1: box.top, y2: box.bottom });
  holder.replaceChildren(svg, ...(tip ? [tip.node] : []));
  holder.points = points;
  holder.x = x;
  holder.setAttribute("aria-label", describeChart(past));
}

function pointTip(point, x, box, width) {
  const at = x(point.time);
  const node = element("div", { class: "tip" }, element("b", {}, new Date(point.time).toISOString().replace("T", " ").slice(0, 19)));
  if (point.row) {
    const levels = detail.forecast.quantile_levels;
    node.append(element("div", {}, `forecast ${number(median(detail.forecast, point.row))}, lead ${point.lead}`),
      element("div", {}, `${percent(levels.at(-1) - levels[0])} between ${number(point.row[0])} and ${number(point.row.at(-1))}`));
  } else {
    node.append(element("div", {}, isNumber(point.value) ? `measured ${number(point.value)}` : "no value"));
  }
  if (at > width / 2) node.style.right = `${width - at + 8}px`;
  else node.style.left = `${at + 8}px`;
  return { node, x: at };
}

function describeChart(past) {
  const measured = past.map((p) => p.value).filter(isNumber);
  const span = measured.length ? `Measured between ${number(Math.min(...measured))} and ${number(Math.max(...measured))}, last ${number(measured.at(-1))}.` : "Nothing measured.";
  if (!hasForecast(detail)) return span;
  const end = detail.forecast.quantiles.at(-1);
  return `${span} Forecast in ${horizon(detail.forecast)} steps: ${number(median(detail.forecast, end))}, between ${number(end[0])} and ${number(end.at(-1))}.`;
}

function moveCursor(index) {
  cursor = index;
  if (detail) drawChart();
}

$("chart").addEventListener("pointermove", (event) => {
  const { points, x } = $("chart");
  if (!points) return;
  const at = event.clientX - $("chart").getBoundingClientRect().left;
  let nearest = 0;
  points.forEach((p, i) => { if (Math.abs(x(p.time) - at) < Math.abs(x(points[nearest].time) - at)) nearest = i; });
  if (nearest !== cursor) moveCursor(nearest);
});
$("chart").addEventListener("pointerleave", () => moveCursor(null));
$("chart").addEventListener("blur", () => moveCursor(null));
$("chart").addEventListener("keydown", (event) => {
  const count = $("chart").points?.length;
  const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
  if (!count || !(event.key in moves)) return;
  event.preventDefault();
  moveCursor(Math.max(0, Math.min(count - 1, (cursor ?? count - 1) + moves[event.key])));
});
new ResizeObserver(() => { if (detail) drawChart(); }).observe($("chart"));

// ---- start

const pollNow = repeat(pollStreams, POLL_MS);
repeat(pollHealth, HEALTH_MS);
let typing = 0;
$("prefix").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(pollNow, 150); });
for (const id of ["sort", "limit"]) $(id).addEventListener("change", pollNow);
$("leads").closest("details").addEventListener("toggle", () => { if (detail) showLeads(); });
$("detail-close").addEventListener("click", () => {
  const link = rows.get(selected)?.parts.link;
  chosen = true;
  select(null);
  history.replaceState(null, "", location.pathname);
  link?.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && selected !== null) $("detail-close").click();
  if (event.key === "/" && !/INPUT|SELECT/.test(document.activeElement.tagName)) { event.preventDefault(); $("prefix").focus(); }
});
window.addEventListener("hashchange", followHash);
followHash();
