// Draws /openapi.json and /asyncapi.json. Everything shown is set as text, never as markup; a key stays in
// sessionStorage and goes to this server only.

const KEY = "tickwire-key";
const MOST_SHOWN = 200_000;
const $ = (id) => document.getElementById(id);
const entries = [];

// ── small builders ────────────────────────────────────────────────────────────────────────────────
function element(name, { className = "", text = "", ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== "") made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

// Backticks become code, bare addresses of this server become links.
function inline(text) {
  const parts = [];
  for (const [index, part] of text.split("`").entries()) {
    if (!part) continue;
    if (index % 2 === 0) { parts.push(part); continue; }
    const code = element("code", { text: part });
    parts.push(/^\/(problems|docs|openapi\.json|asyncapi\.json)/.test(part) ? element("a", { href: part }, code) : code);
  }
  return parts;
}

// Paragraphs and lists: all the Markdown that the descriptions use.
function prose(text) {
  const made = document.createDocumentFragment();
  for (const block of (text ?? "").split(/\n\n+/)) {
    const lines = block.split("\n").filter(Boolean);
    const items = lines.filter((line) => line.startsWith("- "));
    if (items.length && items.length === lines.length) {
      made.append(element("ul", {}, ...items.map((line) => element("li", {}, ...inline(line.slice(2))))));
    } else if (lines.length) made.append(element("p", {}, ...inline(lines.join(" "))));
  }
  return made;
}

const json = (value) => element("pre", { tabindex: "0" }, element("code", { text: JSON.stringify(value, null, 2) }));

// What is inside is built when somebody looks.
function folded(summary, build, attributes = {}) {
  const made = element("details", attributes, element("summary", {}, ...summary));
  made.addEventListener("toggle", () => {
    if (made.open && made.childElementCount === 1) made.append(...[build()].flat());
  });
  return made;
}

// ── schemas ───────────────────────────────────────────────────────────────────────────────────────
const target = (document, reference) =>
  reference.slice(2).split("/").reduce((found, part) => found?.[part.replaceAll("~1", "/").replaceAll("~0", "~")], document);

function resolved(document, value) {
  let found = value;
  for (let turns = 0; found?.$ref && turns < 20; turns += 1) found = target(document, found.$ref);
  return found ?? {};
}

const nameOf = (schema) => schema.$ref?.split("/").at(-1);

function typeOf(document, schema) {
  if (schema.$ref) return nameOf(schema);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const options = schema.anyOf ?? schema.oneOf;
  if (options) return options.map((option) => typeOf(document, option)).join(" | ");
  if (schema.allOf) return schema.allOf.map((part) => nameOf(part)).filter(Boolean).join(" & ") || "object";
  if (schema.type === "array") return `list of ${schema.items ? typeOf(document, schema.items) : "anything"}`;
  if (schema.type === "object" && typeof schema.additionalProperties === "object") {
    return `map to ${typeOf(document, schema.additionalProperties)}`;
  }
  const type = [schema.type ?? "anything"].flat().join(" | ");
  return schema.format ? `${type} (${schema.format})` : type;
}

function boundsOf(schema) {
  const bounds = [];
  const say = (key, text) => { if (schema[key] !== undefined) bounds.push(text(schema[key])); };
  say("minimum", (value) => `≥ ${value}`);
  say("exclusiveMinimum", (value) => `> ${value}`);
  say("maximum", (value) => `≤ ${value}`);
  say("exclusiveMaximum", (value) => `< ${value}`);
  say("minLength", (value) => `at least ${value} characters`);
  say("maxLength", (value) => `at most ${value} characters`);
  say("minItems", (value) => `at least ${value}`);
  say("maxItems", (value) => `at most ${value}`);
  say("pattern", (value) => `matches ${value}`);
  if (schema.default !== undefined && schema.default !== null) bounds.push(`default ${JSON.stringify(schema.default)}`);
  return bounds.join(", ");
}

// The parts of a schema that have fields of their own.
function nested(document, schema) {
  const parts = [schema, schema.items, schema.additionalProperties, ...(schema.anyOf ?? []), ...(schema.oneOf ?? [])]
    .filter((part) => part && typeof part === "object")
    .flatMap((part) => (part === schema ? [part] : [part, part.items, ...(part.anyOf ?? [])].filter(Boolean)));
  return parts.filter((part) => part.$ref ? resolved(document, part).properties : part !== schema && part.properties);
}

function field(document, name, schema, isRequired) {
  const bounds = boundsOf(schema);
  const line = element("li", {}, element("code", { text: name }), " ",
    element("span", { className: "type", text: typeOf(document, schema) }),
    isRequired ? element("span", { className: "must", text: " required" }) : null);
  if (bounds) line.append(element("span", { className: "quiet", text: ` ${bounds}` }));
  if (schema.description) line.append(" – ", ...inline(schema.description));
  if (schema.examples?.length) line.append(" ", element("span", { className: "quiet", text: "e.g. " }), element("code", { text: JSON.stringify(schema.examples[0]) }));
  for (const part of nested(document, schema)) {
    line.append(folded([nameOf(part) ?? "fields"], () => schemaOf(document, part)));
  }
  if (!schema.$ref && schema.properties) line.append(fields(document, schema));
  return line;
}

function fields(document, schema) {
  const required = new Set(schema.required ?? []);
  const lines = Object.entries(schema.properties ?? {}).map(([name, part]) => field(document, name, part, required.has(name)));
  return element("ul", { className: "fields" }, ...lines);
}

function schemaOf(document, schema) {
  const whole = resolved(document, schema);
  const made = element("div", {}, element("p", { className: "type", text: typeOf(document, schema) }));
  if (whole.description) made.append(prose(whole.description));
  if (whole.properties) made.append(fields(document, whole));
  for (const part of nested(document, whole)) made.append(folded([nameOf(part) ?? "fields"], () => schemaOf(document, part)));
  if (whole.examples?.length) made.append(json(whole.examples[0]));
  return made;
}

function media(document, content) {
  return Object.entries(content ?? {}).map(([type, { schema, examples, "x-item-schema": item }]) => {
    const made = element("div", {}, element("h4", { text: type }));
    if (item) made.append(element("p", { text: "A stream; each element is:" }), schemaOf(document, item));
    else if (schema) made.append(schemaOf(document, schema));
    for (const [name, example] of Object.entries(examples ?? {})) {
      made.append(folded([`Example: ${name}`], () => json(example.value)));
    }
    return made;
  });
}

// ── operations ────────────────────────────────────────────────────────────────────────────────────
function parametersOf(document, operation) {
  return (operation.parameters ?? []).map((parameter) => resolved(document, parameter));
}

function parameterTable(document, parameters) {
  const rows = parameters.map((parameter) => element("tr", {},
    element("td", {}, element("code", { text: parameter.name }), parameter.required ? element("span", { className: "must", text: " required" }) : null),
    element("td", { text: parameter.in }),
    element("td", {}, element("span", { className: "type", text: typeOf(document, parameter.schema) }), element("div", { className: "quiet", text: boundsOf({ ...parameter.schema, pattern: undefined }) })),
    element("td", {}, ...inline(parameter.description ?? ""),
      parameter.example === undefined ? null : element("div", {}, element("span", { className: "quiet", text: "e.g. " }), element("code", { text: String(parameter.example) })))));
  const head = element("tr", {}, ...["Name", "In", "Type", "Meaning"].map((text) => element("th", { scope: "col", text })));
  return element("div", { className: "table" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
}

function answer(document, status, response) {
  const whole = resolved(document, response);
  const types = whole.content?.["application/problem+json"]?.schema?.allOf?.[1]?.properties?.type?.enum ?? [];
  const short = types.length ? types.map((type) => type.split("/").at(-1)).join(", ") : whole.description.split("\n")[0];
  return folded([element("code", { className: "status-code", text: status }), ` ${short}`], () => {
    const headers = Object.entries(whole.headers ?? {}).map(([name, header]) =>
      element("li", {}, element("code", { text: name }), " ", ...inline(resolved(document, header).description ?? "")));
    const links = types.map((type) => element("li", {}, element("a", { href: type, text: type })));
    return [prose(whole.description), ...media(document, whole.content),
      links.length ? element("h4", { text: "What these mean, and what to do" }) : null, links.length ? element("ul", {}, ...links) : null,
      element("h4", { text: "Headers" }), element("ul", {}, ...headers)].filter(Boolean);
  });
}

function operationCard(document, path, method, operation) {
  const parameters = parametersOf(document, operation);
  const card = element("article", { className: "card", id: operation.operationId, "data-operation": operation.operationId },
    element("h3", {}, element("span", { className: `method ${method}`, text: method.toUpperCase() }), element("code", { text: path })),
    element("p", { className: "summary", text: operation.summary }),
    element("p", { className: "quiet" }, ...inline(operation.description ?? "Needs no key."), " ", element("code", { text: operation.operationId })));
  if (parameters.length) card.append(folded([`Parameters (${parameters.length})`], () => parameterTable(document, parameters)));
  if (operation.requestBody) card.append(folded(["Body"], () => media(document, operation.requestBody.content)));
  const answers = Object.entries(operation.responses).map(([status, response]) => answer(document, status, response));
  card.append(folded([`Answers (${answers.length})`], () => element("div", { className: "answers" }, ...answers)));
  card.append(folded(["Try it"], () => tryIt(document, path, method, operation, parameters), { className: "trying" }));
  return card;
}

// ── try it ────────────────────────────────────────────────────────────────────────────────────────
function random() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function control(parameter) {
  const { schema } = parameter;
  let given = parameter.in === "path" || parameter.required ? parameter.example ?? "" : "";
  if (parameter.name === "Idempotency-Key") given = `"${random()}"`;
  const made = schema.enum && !parameter.required
    ? element("select", {}, ...["", ...schema.enum].map((value) => element("option", { value, text: value })))
    : element("input", { value: given, spellcheck: "false", autocomplete: "off" });
  made.dataset.parameter = parameter.name;
  if (parameter.required) made.required = true;
  return element("label", {}, `${parameter.name} (${parameter.in})`, made);
}

function choice(label, options, name) {
  const select = element("select", { "data-choice": name }, ...options.map((value) => element("option", { value, text: value })));
  return element("label", {}, label, select);
}

function requestOf(form, path, method, parameters) {
  const url = new URL(location.origin);
  const headers = {};
  let filled = path;
  for (const parameter of parameters) {
    const { value } = form.querySelector(`[data-parameter="${parameter.name}"]`) ?? { value: "" };
    if (value === "") continue;
    if (parameter.in === "path") filled = filled.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (parameter.in === "query") url.searchParams.append(parameter.name, value);
    else headers[parameter.name] = value;
  }
  url.pathname = filled;
  const accept = form.querySelector("[data-choice=accept]")?.value;
  if (accept) headers.accept = accept;
  const key = sessionStorage.getItem(KEY);
  if (key) headers.authorization = `Bearer ${key}`;
  const body = form.querySelector("textarea")?.value;
  if (body !== undefined) headers["content-type"] = form.querySelector("[data-choice=type]").value;
  return { url, init: { method: method.toUpperCase(), headers, body, cache: "no-store", redirect: "follow" } };
}

function curlOf({ url, init }) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const headers = Object.entries(init.headers).map(([name, value]) =>
    ` \\\n  -H ${name === "authorization" ? '"Authorization: Bearer $KEY"' : quoted(`${name}: ${value}`)}`);
  return `curl -X ${init.method} ${quoted(url.href)}${headers.join("")}${init.body === undefined ? "" : ` \\\n  --data-binary ${quoted(init.body)}`}`;
}

function tryIt(document, path, method, operation, parameters) {
  const shown = parameters.filter(({ name }) => !["traceparent", "X-Request-Id", "Prefer"].includes(name));
  const form = element("form", { className: "try" });
  form.append(element("div", { className: "inputs" }, ...shown.map(control)));
  const accepts = Object.keys(resolved(document, Object.values(operation.responses)[0]).content ?? {});
  if (accepts.length > 1) form.append(choice("Accept", accepts, "accept"));
  if (operation.requestBody) {
    const { content } = operation.requestBody;
    const example = Object.values(content["application/json"]?.examples ?? {})[0]?.value ?? {};
    form.append(choice("Media type of the body", Object.keys(content), "type"),
      element("label", {}, "Body", element("textarea", { text: JSON.stringify(example, null, 2), spellcheck: "false" })));
  }
  const stop = element("button", { type: "button", className: "plain", text: "Stop" });
  const curl = element("button", { type: "button", className: "plain", text: "Show as curl" });
  stop.hidden = true;
  const result = element("div", { className: "result", "aria-live": "polite" });
  form.append(element("div", { className: "row" }, element("button", { text: "Send" }), curl, stop), result);
  let running = null;
  stop.addEventListener("click", () => running?.abort());
  curl.addEventListener("click", () => result.replaceChildren(element("pre", { tabindex: "0" }, element("code", { text: curlOf(requestOf(form, path, method, parameters)) }))));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    running?.abort();
    running = new AbortController();
    stop.hidden = false;
    await send(requestOf(form, path, method, parameters), running.signal, result);
    stop.hidden = true;
  });
  return form;
}

async function send({ url, init }, signal, result) {
  const began = performance.now();
  const body = element("code");
  try {
    const response = await fetch(url, { ...init, signal });
    const took = Math.round(performance.now() - began);
    const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    result.replaceChildren(
      element("p", {}, element("span", { className: `status ${response.ok ? "good" : "bad"}`, text: `${response.status} ${response.statusText}` }), element("span", { className: "quiet", text: ` in ${took} ms` })),
      folded(["Headers"], () => element("pre", { tabindex: "0" }, element("code", { text: headers }))),
      element("pre", { tabindex: "0" }, body));
    await fill(body, response);
  } catch (error) {
    const text = error.name === "AbortError" ? "Stopped." : `No answer: ${error.message}`;
    if (body.isConnected) body.append(`\n${text}`); else result.replaceChildren(element("p", { text }));
  }
}

// A stream is shown as it comes, up to a bound; a JSON document is laid out.
async function fill(body, response) {
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  let text = "";
  while (reader && text.length < MOST_SHOWN) {
    const { done, value } = await reader.read();
    if (done) break;
    text += decoder.decode(value, { stream: true });
    body.textContent = text;
  }
  if (text.length >= MOST_SHOWN) { await reader.cancel(); body.append("\n… (the rest is not shown)"); return; }
  if (/json$/.test(response.headers.get("content-type") ?? "")) {
    try { body.textContent = JSON.stringify(JSON.parse(text), null, 2); } catch { /* shown as it came */ }
  }
}

// ── channels ──────────────────────────────────────────────────────────────────────────────────────
function channelCard(document, name, channel) {
  const messages = Object.entries(channel.messages ?? {});
  const operations = Object.values(document.operations).filter((operation) => operation.channel.$ref === `#/channels/${name}`);
  const lines = operations.map((operation) => element("li", {},
    element("span", { className: `method ${operation.action}`, text: operation.action }), " ", ...inline(operation.summary)));
  const card = element("article", { className: "card", id: `channel-${name}`, "data-channel": name },
    element("h3", {}, element("code", { text: channel.address ?? "(reply queue)" })), prose(channel.description));
  if (lines.length) card.append(element("ul", {}, ...lines));
  if (messages.length) {
    card.append(folded([`Messages (${messages.length})`], () => messages.map(([key, reference]) => {
      const message = resolved(document, reference);
      return folded([element("code", { text: key }), ` ${message.summary}`], () => schemaOf(document, message.payload));
    })));
  }
  return card;
}

// ── the page ──────────────────────────────────────────────────────────────────────────────────────
function addGroup(title, items) {
  const heading = element("h2", { className: "group", text: title });
  const list = element("ul");
  const label = element("h2", { text: title });
  $("content").append(heading);
  $("entries").append(label, list);
  for (const { card, method, text, words } of items) {
    const link = element("li", {}, element("a", { href: `#${card.id}` }, element("span", { className: `method ${method}`, text: method.toUpperCase() }), element("span", { text })));
    $("content").append(card);
    list.append(link);
    entries.push({ card, link, words: `${title} ${words}`.toLowerCase(), group: [heading, label] });
  }
}

function draw(openapi, asyncapi) {
  const byTag = new Map((openapi.tags ?? []).map(({ name }) => [name, []]));
  for (const [path, methods] of Object.entries(openapi.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      byTag.get(operation.tags[0]).push({
        card: operationCard(openapi, path, method, operation), method, text: operation.summary,
        words: `${operation.operationId} ${method} ${path} ${operation.summary} ${operation.description ?? ""}`,
      });
    }
  }
  $("content").replaceChildren(element("h2", { text: `${openapi.info.title} ${openapi.info.version}` }), prose(openapi.info.description));
  for (const [tag, items] of byTag) addGroup(tag, items);
  for (const [server, title] of [["gateway", "Sockets and streams"], ["rabbitmq", "Messages between services"]]) {
    const channels = Object.entries(asyncapi.channels).filter(([, channel]) => channel.servers[0].$ref.endsWith(`/${server}`));
    addGroup(title, channels.map(([name, channel]) => ({
      card: channelCard(asyncapi, name, channel), method: server === "gateway" ? "live" : "amqp", text: channel.address ?? name,
      words: `${name} ${channel.address} ${channel.description} ${Object.keys(channel.messages ?? {}).join(" ")}`,
    })));
  }
}

function search() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const seen = new Set();
  let count = 0;
  for (const entry of entries) {
    const fits = words.every((word) => entry.words.includes(word));
    entry.card.hidden = entry.link.hidden = !fits;
    if (fits) { count += 1; entry.group.forEach((heading) => seen.add(heading)); }
  }
  for (const { group } of entries) for (const heading of group) heading.hidden = !seen.has(heading);
  $("found").textContent = words.length ? `${count} of ${entries.length}` : "";
}

function follow() {
  const id = decodeURIComponent(location.hash.slice(1));
  for (const { card, link } of entries) {
    const anchor = link.firstElementChild;
    if (card.id === id) anchor.setAttribute("aria-current", "true"); else anchor.removeAttribute("aria-current");
  }
  if (id) $(id)?.scrollIntoView();
}

function showKey() {
  const key = sessionStorage.getItem(KEY);
  $("forget").hidden = !key;
  $("key").value = "";
  $("key").placeholder = key ? `${key.slice(0, 12)}…` : "tw_live_…";
}

async function load(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

$("keys").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("key").value.trim()) sessionStorage.setItem(KEY, $("key").value.trim());
  showKey();
});
$("forget").addEventListener("click", () => { sessionStorage.removeItem(KEY); showKey(); $("key").focus(); });
$("search").addEventListener("input", search);
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select");
  if (event.key === "/" && !isTyping) { event.preventDefault(); $("search").focus(); }
  if (event.key === "Escape" && event.target === $("search")) { $("search").value = ""; search(); $("content").focus(); }
});
window.addEventListener("hashchange", follow);
showKey();
try {
  draw(...await Promise.all([load("/openapi.json"), load("/asyncapi.json")]));
  follow();
} catch (error) {
  $("notice")?.replaceChildren(`The documents could not be read (${error.message}). Reload the page to try again.`);
}
