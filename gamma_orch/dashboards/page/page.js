// Which dashboard is looked at, and the stream of answers to it. The address says what was chosen.
"use strict";

const $ = (id) => document.getElementById(id);
const SPANS = [[300, "5 minutes"], [900, "15 minutes"], [3600, "hour"], [21600, "6 hours"], [86400, "day"], [604800, "week"], [2592000, "30 days"]];
const LATE = 15000; // milliseconds beyond the refresh until what is shown is said to be old
let boards = [], board = null, heard = Date.now(), choice = null, socket = null, panels = [], waits = 500;

// --- what was chosen: #name?span=3600&model=a&model=b -------------------------------------------

const chosen = () => {
  const [name, query] = decodeURI(location.hash.slice(1)).split("?");
  const found = boards.find((one) => one.name === name) ?? boards[0];
  if (!found) return null;
  const said = new URLSearchParams(query), span = Number(said.get("span"));
  const variables = Object.fromEntries(found.fields.variables.map((one) => [one.name, said.getAll(one.name)]));
  return { board: found.name, span: span >= 60 && span <= 7776000 ? span : found.fields.span, variables };
};

const address = () => {
  const said = new URLSearchParams();
  if (choice.span !== board.fields.span) said.set("span", choice.span);
  for (const [name, values] of Object.entries(choice.variables)) for (const value of values) said.append(name, value);
  const query = said.toString();
  history.replaceState(null, "", `#${choice.board}${query && `?${query}`}`);
};

const ask = () => { if (socket?.readyState === WebSocket.OPEN && choice) socket.send(JSON.stringify(choice)); };

const change = () => { address(); for (const one of panels) one.why("…"); ask(); };

// --- the page -----------------------------------------------------------------------------------

const show = () => {
  choice = chosen();
  $("boards").replaceChildren();
  for (const one of boards) {
    const link = element("a", one.fields.title);
    link.href = `#${one.name}`;
    if (one.name === choice.board) link.setAttribute("aria-current", "page");
    $("boards").append(link);
  }
  if (!choice) {
    $("title").textContent = "There is no dashboard yet.";
    $("description").textContent = "Write a resource of the kind Dashboard: gamma explain Dashboard.";
    return;
  }
  board = boards.find((one) => one.name === choice.board);
  const { fields } = board;
  document.title = fields.title;
  $("title").textContent = fields.title;
  $("description").textContent = fields.description;
  const spans = SPANS.some(([seconds]) => seconds === choice.span) ? SPANS : [...SPANS, [choice.span, time(choice.span)]];
  $("span").replaceChildren(...spans.sort((a, b) => a[0] - b[0]).map(([seconds, name]) => new Option(name, seconds, false, seconds === choice.span)));
  $("variables").replaceChildren(...fields.variables.map(variable));
  panels.forEach((one) => one.forget());
  panels = [];
  $("rows").replaceChildren(...fields.rows.flatMap(row));
};

const row = (said) => {
  const made = element("div", "", "row");
  made.append(...said.panels.map((one) => { const drawn = panel(one); panels.push(drawn); return drawn.element; }));
  return said.title ? [element("h2", said.title), made] : [made];
};

const panel = (said) => {
  const made = element("section", "", "panel"), head = element("h3", said.title), drawn = said.type in { timeseries: 1, heatmap: 1, gauge: 1 };
  const body = element("div", "", drawn ? "body drawn" : "body"), why = element("p", "…", "why"), inner = element("div", "");
  made.setAttribute("aria-label", said.title);
  made.style.setProperty("--wide", said.width);
  made.style.setProperty("--high", said.height);
  if (said.description) head.title = said.description;
  inner.style.height = "100%";
  body.append(inner, why);
  made.append(head, body);
  const tell = (text, kind = "why") => { why.textContent = text; why.className = kind; };
  let last = null;
  const draw = () => {
    if (!last) return;
    if (last.error && !last.series.length) { tell(last.error, "why wrong"); return; }
    if (!last.series.length) { tell("No data."); return; }
    tell("");
    DRAW[said.type](inner, said, last);
  };
  return { element: made, why: tell, hear: (answer) => { last = answer; draw(); }, draw, forget: () => drawn && window.Plotly && Plotly.purge(inner) };
};

// Some of what a label can be; none chosen is all.
const variable = (said) => {
  const made = document.createElement("details"), head = document.createElement("summary"), list = document.createElement("div");
  const words = () => { const values = choice.variables[said.name]; head.replaceChildren(`${said.title}: `, element("b", values.length ? values.join(", ") : "all")); };
  made.dataset.variable = said.name;
  made.append(head, list);
  list.append(element("i", "…"));
  words();
  made.hear = (values) => {
    const all = [...new Set([...values, ...choice.variables[said.name]])].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    if (list.dataset.values === JSON.stringify(all)) return;
    list.dataset.values = JSON.stringify(all);
    list.replaceChildren(...all.map((value) => {
      const label = element("label", ` ${value}`), box = document.createElement("input");
      box.type = "checkbox";
      box.checked = choice.variables[said.name].includes(value);
      box.addEventListener("change", () => {
        choice.variables[said.name] = [...list.querySelectorAll("input")].filter((one) => one.checked).map((one) => one.value);
        words();
        change();
      });
      box.value = value;
      label.prepend(box);
      return label;
    }));
    if (!all.length) list.append(element("i", "None yet."));
  };
  return made;
};

const problem = (text) => { $("problem").textContent = text; $("problem").hidden = !text; };

// --- the stream ---------------------------------------------------------------------------------

const hear = (said) => {
  if (said.error && said.panel === undefined && said.variable === undefined) { panels.forEach((one) => one.why(said.error, "why wrong")); return; }
  if (said.board !== choice?.board) return;
  if (said.variable !== undefined) document.querySelector(`[data-variable="${said.variable}"]`)?.hear(said.values);
  else if (said.panel !== undefined) panels[said.panel]?.hear(said);
  else {
    heard = Date.now();
    $("state").textContent = `Live, ${new Date(1000 * said.done).toLocaleTimeString()}`;
    $("state").className = "";
  }
};

setInterval(() => {
  if (!board || socket?.readyState !== WebSocket.OPEN || Date.now() - heard < 1000 * board.fields.refresh + LATE) return;
  $("state").textContent = `No answer since ${new Date(heard).toLocaleTimeString()}`;
  $("state").className = "gone";
}, 1000);

const connect = () => {
  socket = new WebSocket(`ws://${location.host}/live`);
  socket.addEventListener("open", () => { waits = 500; heard = Date.now(); $("state").className = ""; ask(); });
  socket.addEventListener("message", (event) => hear(JSON.parse(event.data)));
  socket.addEventListener("close", () => {
    $("state").textContent = "Not connected; what is shown is of before.";
    $("state").className = "gone";
    setTimeout(connect, waits = Math.min(2 * waits, 10000));
  });
};

const load = async () => {
  const answer = await fetch("boards");
  if (!answer.ok) { problem(await answer.text()); return; }
  const found = await answer.json();
  boards = found.boards;
  problem(found.problem);
  show();
  connect();
};

$("span").addEventListener("change", () => { choice.span = Number($("span").value); change(); });
$("choice").addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => { show(); ask(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => panels.forEach((one) => one.draw()));
document.addEventListener("click", (event) => { for (const one of document.querySelectorAll("details[open]")) if (!one.contains(event.target)) one.open = false; });
load();
