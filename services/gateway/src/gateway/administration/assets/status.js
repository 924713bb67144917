// Draws /v1/admin/status. The key stays in sessionStorage; everything shown is set as text, never as markup.

const [REFRESH_S, LONGEST_PAUSE_S] = [5, 30];
const PATIENCE_MS = 10_000;
const KEY = "tickwire-key";
const STATES = { ok: "ok", warn: "attention", down: "down", unknown: "unknown" };
const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [300, 86];

const $ = (id) => document.getElementById(id);
const view = { madeAt: 0, failures: 0, timer: 0, asking: null };

// ── small builders ────────────────────────────────────────────────────────────────────────────────
function element(name, { className = "", text = "", ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// ── numbers ───────────────────────────────────────────────────────────────────────────────────────
const digits = (value) =>
  value >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(2)));

function seconds(value) {
  if (value === 0) return "0 s";
  if (value < 0.000_95) return `${digits(value * 1e6)} µs`;
  if (value < 0.95) return `${digits(value * 1e3)} ms`;
  return value < 120 ? `${digits(value)} s` : `${digits(value / 60)} min`;
}

function amount(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "seconds") return seconds(value);
  if (unit === "share") return `${digits(value * 100)} %`;
  return unit === "per_second" ? `${digits(value)}/s` : digits(value);
}

const LEAST_TOP = { seconds: 0.001, share: 0.01, per_second: 1, count: 4 };

// The next 1, 2 or 5 times a power of ten: a top that stands still while the values move a little.
function topOf(lines, unit) {
  const highest = Math.max(LEAST_TOP[unit], ...lines.flatMap((line) => line.values).filter((v) => v !== null));
  const power = 10 ** Math.floor(Math.log10(highest));
  const factor = [1, 2, 5, 10].find((step) => step * power >= highest * 0.999) ?? 10;
  return unit === "share" ? Math.min(factor * power, Math.max(1, highest)) : factor * power;
}

const lastOf = (values) => values[values.length - 1];
const highestOf = (values) => Math.max(...values.filter((value) => value !== null));

// ── charts ────────────────────────────────────────────────────────────────────────────────────────
function pathOf(values, top) {
  const step = WIDTH / (values.length - 1);
  let isDrawing = false;
  let path = "";
  values.forEach((value, at) => {
    if (value !== null) {
      const y = HEIGHT - (Math.min(value, top) / top) * HEIGHT;
      path += `${isDrawing ? "L" : "M"}${(at * step).toFixed(1)} ${y.toFixed(1)}${isDrawing ? "" : "h0"}`;
    }
    isDrawing = value !== null;
  });
  return path;
}

function areaOf(values, top) {
  const first = values.findIndex((value) => value !== null);
  const filled = values.map((value, at) => (at < first ? null : value ?? 0));
  const step = WIDTH / (values.length - 1);
  return `${pathOf(filled, top)}L${WIDTH} ${HEIGHT}L${(first * step).toFixed(1)} ${HEIGHT}Z`;
}

function describe(chart) {
  const parts = chart.lines.map((line) => {
    const [now, high] = [lastOf(line.values), highestOf(line.values)].map((v) => amount(v, chart.unit));
    return `${line.name}: now ${now}, at most ${high}`;
  });
  return `${chart.title}. ${parts.join("; ")}.`;
}

function draw(chart, top) {
  const picture = shape("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": describe(chart),
  });
  for (const y of chart.signal === "saturation" ? [HEIGHT] : [0, HEIGHT / 2, HEIGHT]) {
    picture.append(shape("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y }));
  }
  if (chart.lines.length === 1) picture.append(shape("path", { class: "area", d: areaOf(chart.lines[0].values, top) }));
  chart.lines.forEach((line, at) => {
    picture.append(shape("path", { class: `line l${at}`, d: pathOf(line.values, top) }));
  });
  return picture;
}

const clock = (moment) => new Date(moment * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

function plot(chart, times, show) {
  const top = topOf(chart.lines, chart.unit);
  const picture = draw(chart, top);
  const cursor = shape("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  const until = element("span", { className: "to", text: "now" });
  picture.append(cursor);
  const point = (at) => {
    const x = (WIDTH * at) / (times.length - 1);
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, x);
    cursor.setAttribute("visibility", at === times.length - 1 ? "hidden" : "visible");
    until.textContent = at === times.length - 1 ? "now" : clock(times[at]);
    show(at);
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    point(Math.round(share * (times.length - 1)));
  });
  picture.addEventListener("pointerleave", () => point(times.length - 1));
  return element("div", { className: "plot" }, picture,
    element("span", { className: "top", text: amount(top, chart.unit) }),
    element("span", { className: "from", text: clock(times[0]) }), until);
}

function drawChart(chart, times, isWide) {
  const values = chart.lines.map((line) => element("b", { text: amount(lastOf(line.values), chart.unit) }));
  const legend = chart.lines.map((line, at) => {
    const name = chart.signal === "saturation" ? "" : `${line.name} `;
    return element("span", { className: `legend l${at}` }, name, values[at]);
  });
  const show = (at) => chart.lines.forEach((line, n) => (values[n].textContent = amount(line.values[at], chart.unit)));
  const body = chart.lines.length ? plot(chart, times, show) : element("div", { className: "empty", text: "no data" });
  const caption = element("figcaption", {}, element("h3", { text: chart.title }), ...legend);
  return element("figure", { className: isWide ? "chart wide" : "chart", "data-chart": chart.key }, caption, body);
}

// ── the board ─────────────────────────────────────────────────────────────────────────────────────
const chip = (state, text) => element("span", { className: `chip ${state}`, text });
const targetsText = (targets) =>
  targets.length ? `${targets.filter((target) => target.up).length} of ${targets.length} up` : "no process known";

function drawService(service, times) {
  const heading = element("header", {}, element("h2", { text: service.service }),
    chip(service.state, STATES[service.state]),
    element("span", { className: "quiet", text: [targetsText(service.targets), service.processes].filter(Boolean).join(", ") }));
  const signals = service.charts.filter((chart) => chart.signal !== "saturation");
  const saturation = service.charts.filter((chart) => chart.signal === "saturation");
  const card = element("article", { className: `card ${service.state}`, "data-service": service.service }, heading);
  if (service.reasons.length) {
    card.append(element("ul", { className: "reasons" }, ...service.reasons.map((text) => element("li", { text }))));
  }
  card.append(
    element("div", { className: "charts signals" }, ...signals.map((chart) => drawChart(chart, times, chart.key === "traffic"))),
    element("div", { className: "charts saturation" }, ...saturation.map((chart) => drawChart(chart, times, false))),
  );
  return card;
}

function drawAlert(alert) {
  const since = alert.since ? `since ${new Date(alert.since).toLocaleTimeString()}` : "";
  const leads = /^https?:\/\//.test(alert.runbook ?? "") ? { href: alert.runbook } : {};
  return element("div", { className: `alert ${alert.severity}` },
    element(leads.href ? "a" : "b", { text: alert.name, ...leads }), element("span", { text: alert.summary }), element("span", { text: since }));
}

const ORDER = ["down", "warn", "unknown", "ok"];
const HEADLINES = { down: "Something is down", warn: "Needs attention", unknown: "Not all is known", ok: "All is well" };

function overallOf(report) {
  const all = [...report.services, ...report.neighbours];
  const found = ORDER.find((state) => all.some((one) => one.state === state));
  return found === "ok" && report.alerts.length ? "warn" : found;
}

function drawSummary(report) {
  const overall = overallOf(report);
  document.title = `${HEADLINES[overall]} – Tickwire`;
  const headline = element("strong", { className: `chip overall ${overall}`, text: HEADLINES[overall] });
  const chips = [...report.services, ...report.neighbours].map((one) => element("span", {
    className: `chip ${one.state}`, text: one.service, role: "img", title: one.reasons.join("\n"),
    "aria-label": `${one.service}: ${STATES[one.state]}`,
  }));
  $("summary").replaceChildren(headline, ...chips);
}

function drawAll(report) {
  drawSummary(report);
  $("alerts").replaceChildren(...report.alerts.map(drawAlert));
  $("services").replaceChildren(...report.services.map((service) => drawService(service, report.times)));
  $("board").hidden = false;
  view.madeAt = performance.now() - 1000 * report.age_s;
}

function show(report) {
  // The last known values are more useful than an empty board.
  const isBlind = report.services.every((service) => service.charts.every((chart) => !chart.lines.length));
  const keepsLast = isBlind && report.errors.length > 0 && !$("board").hidden;
  if (!keepsLast) drawAll(report);
  $("board").classList.toggle("stale", keepsLast);
  const details = [...new Set(report.errors.map((error) => error.detail))].join(" ");
  const parts = report.errors.map((error) => error.part).join(", ");
  note(parts && `${details}\nMissing: ${isBlind ? "everything" : parts}. Trying again.`, "warn");
}

// ── asking ────────────────────────────────────────────────────────────────────────────────────────
function note(text, kind = "") {
  const notice = $("notice");
  notice.hidden = !text;
  notice.className = `notice ${kind}`;
  if (notice.textContent !== text) notice.textContent = text;
}

function askForKey(text) {
  sessionStorage.removeItem(KEY);
  clearTimeout(view.timer);
  $("door").hidden = false;
  $("board").hidden = $("controls").hidden = true;
  for (const id of ["summary", "alerts", "services"]) $(id).replaceChildren();
  $("key").value = "";
  $("key").focus();
  note(text, text ? "bad" : "");
}

function later(pause_s) {
  clearTimeout(view.timer);
  view.timer = setTimeout(refresh, pause_s * 1000);
}

function failed(text) {
  view.failures += 1;
  const pause_s = Math.min(REFRESH_S * 2 ** (view.failures - 1), LONGEST_PAUSE_S);
  $("board").classList.add("stale");
  note(`${text}\nTrying again in ${pause_s} s.`, "bad");
  later(pause_s);
}

async function refused(answer) {
  const problem = await answer.json().catch(() => ({}));
  const detail = problem.detail ?? `The gateway answered with status ${answer.status}.`;
  if (answer.status === 401) return askForKey("The gateway does not know this key, or it has expired or been revoked.");
  if (answer.status === 403) return askForKey("This key is valid, but it lacks the scope admin that the figures need.");
  // No retry: an operator must set it first, and then load the page again.
  if (problem.type === "/problems/monitoring-not-configured") return note(detail, "warn");
  return failed(problem.instance ? `${detail} (request ${problem.instance})` : detail);
}

async function load(signal) {
  const answer = await fetch(`/v1/admin/status?window=${encodeURIComponent($("window").value)}`, {
    headers: { authorization: `Bearer ${sessionStorage.getItem(KEY)}` }, cache: "no-store", signal,
  });
  $("door").hidden = true;
  $("controls").hidden = false;
  if (!answer.ok) return refused(answer);
  show({ ...(await answer.json()), age_s: Number(answer.headers.get("age") ?? 0) });
  view.failures = 0;
  tick();
  later(REFRESH_S);
}

async function refresh() {
  view.asking?.abort();
  const asking = (view.asking = new AbortController());
  const patience = setTimeout(() => asking.abort(), PATIENCE_MS);
  try {
    await load(asking.signal);
  } catch (error) {
    // Only the answer to the newest request counts.
    if (view.asking === asking) failed(error.name === "AbortError" ? "The gateway did not answer in time." : "The gateway cannot be reached.");
  } finally {
    clearTimeout(patience);
  }
}

function tick() {
  if (!view.madeAt) return;
  const age_s = Math.round((performance.now() - view.madeAt) / 1000);
  $("updated").textContent = age_s < 120 ? `updated ${age_s} s ago` : `updated ${Math.round(age_s / 60)} min ago`;
  $("updated").classList.toggle("late", age_s > 3 * REFRESH_S);
}

$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, $("key").value.trim());
  refresh();
});
$("leave").addEventListener("click", () => { view.asking?.abort(); view.asking = null; askForKey(""); });
$("window").addEventListener("change", refresh);
document.addEventListener("visibilitychange", () => {
  clearTimeout(view.timer);
  if (!document.hidden && sessionStorage.getItem(KEY) && $("door").hidden) refresh();
});
setInterval(tick, 1000);
if (sessionStorage.getItem(KEY)) refresh(); else askForKey("");
