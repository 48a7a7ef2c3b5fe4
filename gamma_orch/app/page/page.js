// The page at `/`. The key stays in this page's memory: in no storage, and in no address.
"use strict";

const $ = (id) => document.getElementById(id);
const POINTS = 60;
const lines = { rate: [], latency: [], hits: [], errors: [] };
let key = "", socket = null, before = null;

const call = async (path, body) => {
  const answer = await fetch(path, {
    method: body ? "POST" : "GET",
    headers: { Authorization: `Bearer ${key}`, ...(body && { "Content-Type": "application/json" }) },
    body: body && JSON.stringify(body),
  });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.detail || `The API answered ${answer.status}.`);
  return { said, cache: answer.headers.get("x-cache") };
};

const say = (text) => { $("state").textContent = text; };

// --- models -------------------------------------------------------------------------------------

const cell = (row, content, tag) => {
  const made = row.insertCell();
  (tag ? made.appendChild(document.createElement(tag)) : made).textContent = content;
};

const showModels = (models) => {
  $("models").replaceChildren();
  $("model").replaceChildren();
  for (const model of models) {
    $("model").add(new Option(model.id));
    for (const version of model.versions) {
      const row = $("models").insertRow();
      cell(row, model.id);
      cell(row, model.task);
      cell(row, version.digest.slice(0, 12), "code");
      cell(row, version.shadow ? "shadow" : `${Math.round(100 * version.share)} %`);
    }
  }
  $("try").querySelector("button").disabled = models.length === 0;
};

// --- live figures -------------------------------------------------------------------------------

const draw = (name, value, text) => {
  const line = lines[name];
  line.push(value);
  if (line.length > POINTS) line.shift();
  $(name).textContent = text;
  const most = Math.max(...line, 1e-9);
  const first = POINTS - line.length; // the newest is at the right
  const points = line.map((one, i) => `${(120 * (first + i)) / (POINTS - 1)},${(29 - (28 * one) / most).toFixed(1)}`);
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  shape.setAttribute("points", points.join(" "));
  $(`${name}-line`).replaceChildren(shape);
};

const forget = () => {
  for (const [name, line] of Object.entries(lines)) {
    line.length = 0;
    $(name).textContent = "–";
    $(`${name}-line`).replaceChildren();
  }
};

const hear = (now) => {
  if (now.event !== "metrics") return;
  if (before) {
    const since = (name) => (now.totals[name] ?? 0) - (before.totals[name] ?? 0);
    const seconds = Math.max(now.at - before.at, 0.001);
    const rate = since("gamma_requests_total") / seconds, errors = since("gamma_requests_failed_total") / seconds;
    const asked = since("gamma_request_seconds_count"), answers = since("gamma_answers_total");
    const mean = asked ? since("gamma_request_seconds_sum") / asked : 0;
    const hits = answers ? since("gamma_answers_cached_total") / answers : 0;
    draw("rate", rate, rate.toFixed(1));
    draw("latency", mean, asked ? `${(1000 * mean).toFixed(mean < 0.1 ? 1 : 0)} ms` : "–");
    draw("hits", hits, answers ? `${Math.round(100 * hits)} %` : "–");
    draw("errors", errors, errors.toFixed(1));
  }
  before = now;
};

const leave = () => {
  const gone = socket;
  socket = before = null;
  gone?.close();
};

// Heard before: this key may listen, so a connection that ends or fails is tried again.
const listen = (heard) => {
  leave();
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const mine = (socket = new WebSocket(`${scheme}://${location.host}/v1/live`, ["gamma.live", `bearer.${key}`]));
  mine.onmessage = (event) => hear(JSON.parse(event.data));
  mine.onopen = () => { heard = true; say("Connected."); };
  mine.onclose = (event) => {
    if (mine !== socket) return;
    if (event.code === 1008) return say(event.reason);
    if (!heard) return say("Connected; this key may not see live figures.");
    say("Live figures lost; connecting again.");
    setTimeout(() => mine === socket && listen(true), 1000);
  };
};

// --- what one does ------------------------------------------------------------------------------

$("door").addEventListener("submit", async (event) => {
  event.preventDefault();
  leave();
  forget();
  showModels([]);
  key = $("key").value.trim();
  try {
    showModels((await call("/v1/models")).said.data);
    say("Connected.");
    listen(false);
  } catch (error) {
    say(error.message);
  }
});

$("try").addEventListener("submit", async (event) => {
  event.preventDefault();
  const started = performance.now();
  $("took").textContent = "Waiting for the model.";
  try {
    const [model, adapter] = $("model").value.split(":"); // as /v1/models lists an adapter
    const body = { inputs: $("text").value, ...(adapter && { parameters: { adapter } }) };
    const { said, cache } = await call(`/v1/models/${encodeURIComponent(model)}/predict`, body);
    const by = cache && cache !== "made" ? `from the cache (${cache})` : "by the model";
    $("took").textContent = `Answered in ${(performance.now() - started).toFixed(1)} ms, ${by}.`;
    $("answer").textContent = JSON.stringify(said, null, 1);
  } catch (error) {
    $("took").textContent = error.message;
    $("answer").textContent = "";
  }
});
