// How a panel is drawn: from its spec and an answer into an element. Knows nothing of where it comes from.
"use strict";

const COLOURS = ["#4c86e0", "#e0803a", "#38a169", "#b65fc2", "#c9a227", "#3aa6b9", "#d9536f", "#7f8c9d", "#8f74e0", "#86a83b"];
const CONFIG = { displaylogo: false, responsive: true, displayModeBar: false };

const style = (name) => {
  // What light-dark() comes to: a canvas or an SVG of plotly's has to be told a colour.
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
};

const faint = (name) => style(name).replace(/^rgb\((.*)\)$/, "rgba($1, 0.3)");

// --- numbers ------------------------------------------------------------------------------------

const number = (text) => { const found = Number(text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : text); return Number.isFinite(found) ? found : null; };

const short = (value, digits = 3) => {
  if (value === 0) return "0";
  for (const [size, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= size * 0.9995) return `${Number((value / size).toPrecision(digits))} ${name}`;
  }
  return `${Math.abs(value) < 1e-4 ? value.toExponential(1) : Number(value.toPrecision(digits))}`;
};

const time = (value) => {
  const size = Math.abs(value);
  const to = (by, name) => `${Number((value / by).toPrecision(3))} ${name}`;
  if (value === 0) return "0 s";
  if (size < 0.9995e-3) return to(1e-6, "µs");
  if (size < 0.9995) return to(1e-3, "ms");
  if (size < 120) return to(1, "s");
  if (size < 7200) return to(60, "min");
  return size < 172800 ? to(3600, "h") : to(86400, "d");
};

const written = (value, unit) => {
  if (value === null) return "–";
  switch (unit) {
    case "seconds": return time(value);
    case "bytes": return `${short(value)}B`.replace(/(\d)B$/, "$1 B");
    case "bytesPerSecond": return `${short(value)}B/s`.replace(/(\d)B/, "$1 B");
    case "ratio": return `${Number((100 * value).toPrecision(4))} %`;
    case "perSecond": return `${short(value)}/s`;
  }
  return short(value);
};

// The ticks of an axis: plotly's own places, in words of ours.
const ticks = (values, unit, panel) => {
  const seen = values.filter((one) => one !== null);
  let low = panel.min ?? Math.min(0, ...seen), high = panel.max ?? Math.max(...seen, ...(seen.length ? [] : [1]));
  if (!(high > low)) high = low + (Math.abs(low) || 1);
  const base = unit === "seconds" ? (high > 7200 ? 3600 : high > 120 ? 60 : 1) : 1;
  const rough = (high - low) / base / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = base * power * [1, 2, 2.5, 5, 10].find((one) => one * power >= rough);
  const places = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high * (1 + 1e-9); at++) places.push(at * step);
  return { tickvals: places, ticktext: places.map((at) => written(Math.abs(at) < step / 1e6 ? 0 : Number(at.toPrecision(12)), unit)), range: [low, high + (panel.max === null ? 0.06 : 0.02) * (high - low)] };
};

// --- series -------------------------------------------------------------------------------------

const called = (series, panel) => {
  const legend = panel.queries[series.query].legend;
  if (legend) return legend.replace(/{{\s*([A-Za-z_]\w*)\s*}}/g, (_, label) => series.labels[label] ?? "").trim() || panel.title;
  const labels = Object.entries(series.labels).filter(([name]) => name !== "__name__");
  return labels.map(([name, value]) => `${name}=${value}`).join(" ") || series.labels.__name__ || panel.title;
};

const level = (value, panel) => {
  const { warning, critical } = panel.thresholds;
  if (value === null || (warning === undefined && critical === undefined)) return "";
  const less = warning !== undefined && critical !== undefined && critical < warning;
  const reached = (at) => at !== undefined && (less ? value < at : value >= at);
  return reached(critical) ? "critical" : reached(warning) ? "warning" : "fine";
};

// Points with a gap where there is none: a line over what nobody knows would be made up.
const gapped = (series, step) => {
  const x = [], y = [];
  let before = null;
  for (const [at, value] of series.points) {
    if (before !== null && at - before > 1.5 * step) { x.push(new Date(1000 * (before + step))); y.push(null); }
    x.push(new Date(1000 * at));
    y.push(number(value));
    before = at;
  }
  return { x, y };
};

const layout = (answer, more) => {
  const shown = answer.end - answer.start;
  const tickformat = shown < 600 ? "%H:%M:%S" : shown <= 172800 ? "%H:%M" : "%b %-d";
  const grid = { gridcolor: style("--line"), zerolinecolor: style("--line"), linecolor: style("--line"), color: style("--soft"), fixedrange: true };
  const { xaxis, yaxis, ...rest } = more;
  return {
    margin: { l: 58, r: 8, t: 6, b: 24 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 11, color: style("--text") }, hovermode: "x unified", showlegend: false,
    hoverlabel: { bgcolor: style("--card"), bordercolor: style("--line"), font: { color: style("--text") } },
    xaxis: { ...grid, type: "date", range: [new Date(1000 * answer.start), new Date(1000 * answer.end)], showgrid: false, tickformat, ...xaxis },
    yaxis: { ...grid, ...yaxis }, ...rest,
  };
};

const timeseries = (body, panel, answer) => {
  const lines = answer.series.map((one) => ({ name: called(one, panel), ...gapped(one, answer.step) }));
  lines.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  let all = lines.flatMap((line) => line.y);
  if (panel.stack) {
    const sums = new Map();
    for (const line of lines) line.x.forEach((at, i) => sums.set(+at, (sums.get(+at) ?? 0) + (line.y[i] ?? 0)));
    all = [...sums.values()];
  }
  const bounds = Object.entries(panel.thresholds), few = all.length && lines.every((line) => line.y.length < 2);
  const traces = lines.map((line, i) => ({
    ...line, type: "scatter", mode: few ? "markers" : "lines", connectgaps: false, line: { width: 1.5, color: COLOURS[i % COLOURS.length] },
    ...(panel.stack && { stackgroup: "all", fillcolor: `${COLOURS[i % COLOURS.length]}88` }),
    text: line.y.map((one) => written(one, panel.unit)), hovertemplate: "%{text}<extra>%{fullData.name}</extra>",
  }));
  const shapes = bounds.map(([name, at]) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: at, y1: at, line: { color: style(`--${name}`), width: 1, dash: "dash" } }));
  const legend = lines.length > 1 || panel.queries.some((one) => one.legend);
  Plotly.react(body, traces, layout(answer, {
    yaxis: { ...ticks(all, panel.unit, panel), autorange: false }, shapes, showlegend: Boolean(legend),
    legend: { orientation: "h", x: 0, y: -0.13, yanchor: "top", itemwidth: 30 }, margin: { l: 58, r: 8, t: 6, b: legend ? 48 : 24 },
  }), CONFIG);
};

// Of a histogram's buckets, which count upward, what is in each alone.
const heatmap = (body, panel, answer) => {
  const bound = (one) => (one.labels.le === "+Inf" ? Infinity : Number(one.labels.le));
  const rows = answer.series.filter((one) => one.labels.le !== undefined).sort((a, b) => bound(a) - bound(b));
  const moments = [...new Set(rows.flatMap((one) => one.points.map(([at]) => at)))].sort((a, b) => a - b);
  const values = rows.map((one) => { const there = new Map(one.points); return moments.map((at) => (there.has(at) ? number(there.get(at)) : null)); });
  const z = values.map((row, i) => row.map((value, j) => (value === null ? null : Math.max(0, value - (i ? values[i - 1][j] ?? 0 : 0)) || null)));
  const names = rows.map((one) => (bound(one) === Infinity ? "more" : `≤ ${written(bound(one), panel.unit)}`));
  Plotly.react(body, [{
    type: "heatmap", x: moments.map((at) => new Date(1000 * at)), y: names, z, colorscale: [[0, style("--card")], [0.15, "#9ec1f5"], [1, "#2b62c9"]], zmin: 0,
    showscale: true, colorbar: { thickness: 8, outlinewidth: 0, tickfont: { color: style("--soft") } }, hovertemplate: "%{x|%H:%M:%S}, %{y}: %{z:.3~g}/s<extra></extra>",
  }], layout(answer, { hovermode: "closest", yaxis: { type: "category", showgrid: false }, margin: { l: 76, r: 8, t: 6, b: 24 } }), CONFIG);
};

const gauge = (body, panel, answer) => {
  const [one] = answer.series, value = one ? number(one.points.at(-1)[1]) : null, low = panel.min ?? 0;
  const { warning, critical } = panel.thresholds;
  const marks = [["warning", warning], ["critical", critical]].filter(([, at]) => at !== undefined);
  const steps = marks.map(([name, at]) => {
    const less = warning !== undefined && critical !== undefined && critical < warning;
    const other = less ? (name === "critical" ? low : critical) : name === "warning" && critical !== undefined ? critical : panel.max;
    return { range: less ? [other, at] : [at, other], color: faint(`--${name}`) };
  });
  Plotly.react(body, [{
    type: "indicator", mode: "gauge", value,
    gauge: { axis: { ...ticks([low, panel.max], panel.unit, panel), range: [low, panel.max], tickcolor: style("--soft") }, bar: { color: style(`--${level(value, panel) || "mark"}`) }, bgcolor: style("--back"), borderwidth: 0, steps },
  }], { margin: { l: 44, r: 44, t: 18, b: 4 }, paper_bgcolor: "rgba(0,0,0,0)", font: { family: "system-ui, sans-serif", size: 10, color: style("--soft") },
    annotations: [{ text: written(value, panel.unit), x: 0.5, y: 0.05, xanchor: "center", yanchor: "bottom", showarrow: false, font: { size: 20, color: style("--text") } }] }, CONFIG);
};

const element = (tag, text, kind) => { const made = document.createElement(tag); made.textContent = text; if (kind) made.className = kind; return made; };

const stat = (body, panel, answer) => {
  const stats = element("div", "", "stats");
  for (const one of answer.series) {
    const value = number(one.points.at(-1)[1]), block = document.createElement("div");
    block.append(element("b", written(value, panel.unit), level(value, panel)));
    if (answer.series.length > 1) block.append(element("span", called(one, panel)));
    stats.append(block);
  }
  body.replaceChildren(stats);
};

const table = (body, panel, answer) => {
  const labels = [...new Set(answer.series.flatMap((one) => Object.keys(one.labels)))].filter((name) => name !== "__name__").sort();
  const shown = answer.series.map((one) => [one, number(one.points.at(-1)[1])]).sort((a, b) => (b[1] ?? -Infinity) - (a[1] ?? -Infinity));
  const made = document.createElement("table");
  const head = made.createTHead().insertRow();
  for (const name of [...labels, "value"]) head.append(element("th", name));
  const rows = made.createTBody();
  for (const [one, value] of shown) {
    const row = rows.insertRow();
    for (const name of labels) row.append(element("td", one.labels[name] ?? ""));
    row.append(element("td", written(value, panel.unit), level(value, panel)));
  }
  body.replaceChildren(made);
};

const DRAW = { timeseries, heatmap, gauge, stat, table };
