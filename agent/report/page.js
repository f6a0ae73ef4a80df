// What report.html does: plots by plotly from the page's own data, a table to sort, a brush that narrows
// both. Texts go in as text: nothing here makes markup of data.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const {columns, rows, styles} = data;
const at = id => document.getElementById(id);
const count = rows.series.length;
const state = {series: 0, front: 0, brushed: null, pinned: null, answer: null, sort: null, down: false, all: false};
const FIRST = 100;  // rows of the table that are there at once
const INK = "#1a1a1a", GREY = "#8a8a8a";
const FONT = {family: getComputedStyle(document.body).fontFamily, size: 13, color: INK};
// Only these: plotly's others may open its maker's site.
const CONFIG = {responsive: true, displaylogo: false, modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]]};
const STILL = {...CONFIG, modeBarButtons: [["toImage"]]};
const LAYOUT = {font: FONT, paper_bgcolor: "white", plot_bgcolor: "white", hoverlabel: {font: FONT}};
const OF_CURVES = {...LAYOUT, height: 460, margin: {l: 70, r: 16, t: 10, b: 110}, hovermode: "closest",
                   legend: {orientation: "h", y: -0.18, x: 0, yanchor: "top"}};
const AXIS = {gridcolor: "#ececec", linecolor: "#999", ticks: "outer", tickcolor: "#999", zeroline: false};
const BARRED = count <= 500;  // more intervals would hide the points
const WIDE = count > 1000 ? "scattergl" : "scatter";

const element = (tag, text, attributes = {}) => {
  const made = document.createElement(tag);
  if (text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
const plain = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");  // for plotly's labels
const named = key => columns[key].unit ? `${columns[key].label} [${columns[key].unit}]` : columns[key].label;
const shown = (key, value) => {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const {digits} = columns[key];
  if (digits === 0) return value.toLocaleString("en");
  if (digits && value && Math.abs(value) < 0.5 * 10 ** -digits) return String(round(value, 2));
  return digits ? value.toFixed(digits) : value.toLocaleString("en", {maximumSignificantDigits: 4});
};
const spread = (key, row) => {
  const low = rows[key + "_low"], high = rows[key + "_high"];
  return low && low[row] !== null ? `${shown(key, low[row])} – ${shown(key, high[row])}` : "";
};
const short = value => value >= 1e12 ? `${value / 1e12}T` : value >= 1e9 ? `${value / 1e9}G` : value >= 1e6 ? `${value / 1e6}M`
  : value >= 1e3 ? `${value / 1e3}k` : String(value);
const round = (value, digits) => Number(value.toPrecision(digits));
// Ticks at 1, 2 and 5, or at powers of ten where those are many, in plain words.
function logTicks(values, many = 300) {
  const low = lowest(values), high = highest(values);
  if (!(high / low > 4)) return {nticks: 6};
  const steps = high / low > many ? [1] : [1, 2, 5], ticks = [];
  for (let power = Math.floor(Math.log10(low)) - 1; power <= Math.log10(high) + 1; power++)
    for (const step of steps) ticks.push(round(step * 10 ** power, 3));
  return {tickvals: ticks, ticktext: ticks.map(tick => short(tick))};
}
const members = series => [...Array(count).keys()].filter(row => rows.series[row] === series);

// --- the configuration under the pointer ------------------------------------------------------
function detail(row) {
  const box = at("detail");
  box.replaceChildren();
  if (row === null) return;
  const picture = data.thumbnails[row];
  box.append(element("h3", rows.label[row]));
  if (data.series[rows.series[row]].recommended === row) box.append(element("p", "recommended", {class: "tag"}));
  if (rows.status[row] !== "finished") box.append(element("p", rows.status[row], {class: "tag bad"}));
  if (picture) {
    const figure = element("figure", null);
    figure.append(element("img", null, {src: picture, alt: `phase reconstructed by ${rows.label[row]}`}),
                  element("figcaption", "reconstructed phase"));
    box.append(figure);
  }
  const list = element("dl", null);
  for (const key of data.detail) {
    if (rows[key][row] === null) continue;
    const value = element("dd", shown(key, rows[key][row]));
    if (spread(key, row)) value.append(element("small", ` 95 %: ${spread(key, row)}`));
    list.append(element("dt", named(key)), value);
  }
  box.append(list);
}
function pin(row) {
  state.pinned = row;
  detail(row);
  for (const line of at("rows").children) line.classList.toggle("pinned", Number(line.dataset.row) === row);
}

let listening = false;

// --- cost against quality -----------------------------------------------------------------------
function scatter() {
  const series = data.series[state.series], front = series.fronts[state.front];
  at("tradeoff").hidden = !front;
  if (!front) return;
  const {x, y} = front;
  const own = members(state.series).filter(row => rows[x][row] !== null && rows[y][row] !== null);
  const fine = own.filter(row => rows.status[row] === "finished");
  const traces = [];
  if (front.rows.length) {
    const last = highest(own.map(row => rows[x][row])) * 1.6;
    const path = front.rows.map(row => [rows[x][row], rows[y][row]]);
    path.push([last, path[path.length - 1][1]]);
    traces.push({type: "scatter", mode: "lines", name: "front", hoverinfo: "skip",
                 x: path.map(p => p[0]), y: path.map(p => p[1]), line: {shape: "hv", color: "black", width: 1.4}});
  }
  const kinds = [...new Set(fine.map(row => rows.kind[row]))].sort();
  for (const kind of kinds) {
    const mine = fine.filter(row => rows.kind[row] === kind);
    const low = rows[y + "_low"], high = rows[y + "_high"];
    const off = (bound, row) => bound[row] === null ? 0 : Math.abs(bound[row] - rows[y][row]);
    traces.push({
      type: WIDE, mode: "markers", name: plain(kind), customdata: mine,
      x: mine.map(row => rows[x][row]), y: mine.map(row => rows[y][row]),
      text: mine.map(row => plain(rows.label[row])),
      hovertemplate: "%{text}<br>%{y:.4~f}<extra></extra>",
      marker: {...styles[kind], size: 11, line: {color: "white", width: 1}},
      error_y: low && BARRED && mine.some(row => low[row] !== null)
        ? {type: "data", symmetric: false, array: mine.map(row => off(high, row)),
           arrayminus: mine.map(row => off(low, row)), thickness: 1, width: 3, color: styles[kind].color}
        : undefined,
      selectedpoints: state.brushed && mine.map((row, i) => state.brushed.has(row) ? i : -1).filter(i => i >= 0),
      unselected: {marker: {opacity: 0.12}},
    });
  }
  for (const [how, symbol] of [["collapsed", "x-thin"], ["stopped", "diamond-open"]]) {
    const apart = front[how];
    if (!apart.label.length) continue;
    traces.push({type: WIDE, mode: "markers", name: how, x: apart.x, y: apart.y, text: apart.label.map(plain),
                 hovertemplate: `%{text}<br>${how}, %{y:.4~f}<extra></extra>`,
                 marker: {symbol, size: 9, color: GREY, line: {color: GREY, width: 2}}});
  }
  const ring = (name, row, marker) => ({type: "scatter", mode: "markers", name, hoverinfo: "skip",
                                        x: [rows[x][row]], y: [rows[y][row]], marker});
  const best = series.recommended;
  if (best !== null && fine.includes(best))
    traces.push(ring("recommended", best, {symbol: "circle-open", size: 22, color: "black", line: {width: 2}}));
  // What was asked of the front: a square around the answer, the part beyond the bounds in grey.
  const beyond = [], {answer} = state;
  if (answer) {
    traces.push(ring(answer.met ? "the answer" : "the nearest", answer.row,
                     {symbol: "square-open", size: 28, color: "#0072b2", line: {width: 2.5}}));
    const grey = {type: "rect", layer: "below", line: {width: 0}, fillcolor: "rgba(60, 60, 60, 0.08)"};
    const [quality, cost] = answer.bounds, last = highest(fine.map(row => rows[x][row])) * 1.6;
    if (answer.excludes[0]) beyond.push({...grey, xref: "paper", x0: 0, x1: 1, y0: quality, y1: quality + (answer.least ? -1e3 : 1e3)});
    if (answer.excludes[1] && cost > 0) beyond.push({...grey, yref: "paper", y0: 0, y1: 1, x0: cost, x1: last});
  }
  // The view shows the finished ones; a floor or a collapsed one far below can be scrolled to.
  const values = fine.flatMap(row => !BARRED ? [rows[y][row]] : [rows[y][row], (rows[y + "_low"] || rows[y])[row] ?? rows[y][row],
                                      (rows[y + "_high"] || rows[y])[row] ?? rows[y][row]]);
  const [low, high] = values.length ? [lowest(values), highest(values)] : [0, 1];
  const span = Math.max(high - low, data.spans[y]), middle = (low + high) / 2;
  const range = [middle - 0.62 * span, middle + 0.62 * span];
  const floors = Object.entries(series.floors[y] || {});
  const inside = floors.filter(([, value]) => value > low - span);
  if (inside.length) range[0] = Math.min(range[0], ...inside.map(([, value]) => value - 0.08 * span));
  const outside = floors.filter(([, value]) => value < range[0]).map(([name, value]) => `${name} ${shown(y, value)}`);
  Plotly.react("scatter", traces, {
    ...LAYOUT, height: 540, margin: {l: 70, r: 16, t: 10, b: 60}, hovermode: "closest",
    xaxis: {...AXIS, type: "log", title: {text: plain(named(x))}, ...logTicks(fine.map(row => rows[x][row]))},
    yaxis: {...AXIS, title: {text: plain(named(y) + series.suffix)}, range},
    legend: {orientation: "h", y: -0.2, x: 0},
    shapes: [...beyond, ...inside.map(([, value]) => ({type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value,
                                                       line: {color: GREY, width: 1, dash: "dot"}}))],
    annotations: inside.map(([name, value]) => ({xref: "paper", x: 1, xanchor: "right", y: value, yanchor: "bottom",
                                                 text: plain(name), showarrow: false, font: {size: 11, color: "#555"}})),
  }, CONFIG);
  if (!listening) {
    listening = true;
    at("scatter").on("plotly_hover", ({points: [{customdata}]}) => { if (customdata !== undefined) detail(customdata); });
    at("scatter").on("plotly_unhover", () => detail(state.pinned));
    at("scatter").on("plotly_click", ({points: [{customdata}]}) => { if (customdata !== undefined) pin(customdata); });
  }
  at("floors").textContent = outside.length ? `Without a network, below this view: ${outside.join(" · ")}.` : "";
}
function choose(id, options, apply) {
  const select = at(id);
  select.replaceChildren(...options.map((text, index) => element("option", text, {value: index})));
  select.onchange = () => { apply(Number(select.value)); };
  select.closest("label").hidden = options.length < 2;
}
function openSeries(index) {
  const {fronts, reported} = data.series[index];
  Object.assign(state, {series: index, front: 0, brushed: null, sort: reported in rows ? reported : null});
  state.down = columns[reported].better === "higher";
  choose("front", fronts.map(({x, y}) => `${named(x)} → ${named(y)}`), front => { state.front = front; ask(); scatter(); });
  ask(); scatter(); ladder(); parallel(); table();
  pin(data.series[index].recommended);
}

// --- parallel coordinates -----------------------------------------------------------------------
let axes = [], lines = [];
function parallel() {
  const reported = data.series[state.series].reported;
  const own = members(state.series).filter(row => rows.status[row] === "finished");
  const varied = key => new Set(own.map(row => rows[key][row])).size > 1;
  axes = data.parallel.filter(varied);
  lines = own.filter(row => axes.every(key => columns[key].is_key || rows[key][row] !== null));
  at("brushing").hidden = axes.length < 2 || lines.length < 2;
  if (at("brushing").hidden) return;
  const dimensions = axes.map(key => {
    const values = lines.map(row => rows[key][row]);
    const label = plain(named(key)), {is_key, digits} = columns[key];
    if (values.some(value => typeof value !== "number") || (is_key || digits === 0) && new Set(values).size <= 8) {
      const levels = [...new Set(values)].sort(
        (a, b) => a === null ? -1 : b === null ? 1 : a < b ? -1 : a > b ? 1 : 0);
      return {label, values: values.map(value => levels.indexOf(value)), tickvals: levels.map((_, i) => i),
              ticktext: levels.map(level => plain(is_key ? level ?? "None" : shown(key, level))), range: [-0.1, levels.length - 0.9]};
    }
    if (!columns[key].log) return {label, values};
    const logs = values.map(Math.log10);
    const low = lowest(logs), high = highest(logs);
    const ticks = [0, 1, 2, 3, 4].map(i => low + i * (high - low) / 4);
    return {label, values: logs, tickvals: ticks, ticktext: ticks.map(tick => short(round(10 ** tick, 3)))};
  });
  Plotly.newPlot("parallel", [{
    type: "parcoords", dimensions, labelfont: {size: 12}, tickfont: {size: 11}, rangefont: {size: 1, color: "white"},
    line: {color: lines.map(row => rows[reported][row]), colorscale: "Cividis", showscale: true,
           reversescale: columns[reported].better === "lower",
           colorbar: {title: {text: plain(named(reported)), side: "right"}, thickness: 12}},
  }], {...LAYOUT, height: 400, margin: {l: 70, r: 40, t: 50, b: 24}}, STILL);
  at("parallel").on("plotly_restyle", brush);
}
function brush() {
  const trace = at("parallel").data[0];
  const ranges = trace.dimensions.map(({constraintrange: c}) => !c ? null : Array.isArray(c[0]) ? c : [c]);
  const kept = lines.filter((_, i) => ranges.every((some, axis) => some === null ||
    some.some(([low, high]) => trace.dimensions[axis].values[i] >= low && trace.dimensions[axis].values[i] <= high)));
  state.brushed = ranges.some(Boolean) ? new Set(kept) : null;
  at("brushed").textContent = state.brushed ? `${kept.length} of ${lines.length} configurations` : "";
  at("unbrush").hidden = !state.brushed;
  scatter(); table();
}

// --- the table ----------------------------------------------------------------------------------
function table() {
  const {sort, down} = state, words = at("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = members(state.series).filter(row => (!state.brushed || state.brushed.has(row)) &&
    words.every(word => `${rows.label[row]} ${rows.status[row]}`.toLowerCase().includes(word)));
  if (sort) {
    const values = rows[sort];
    found.sort((a, b) => {
      const [p, q] = [values[a], values[b]];
      if (p === null || q === null) return (p === null) - (q === null);  // what is missing comes last
      return (p < q ? -1 : p > q ? 1 : 0) * (down ? -1 : 1);
    });
  }
  const part = state.all ? found : found.slice(0, FIRST);
  at("rows").replaceChildren(...part.map(row => {
    const line = element("tr", null, {"data-row": row, tabindex: 0});
    if (row === data.series[state.series].recommended) line.classList.add("recommended");
    if (row === state.pinned) line.classList.add("pinned");
    line.append(...data.table.map((key, index) => {
      const cell = element(index ? "td" : "th", shown(key, rows[key][row]), index ? {} : {scope: "row"});
      if (typeof rows[key][row] === "number") cell.className = "number";
      if (spread(key, row)) { cell.title = `95 %: ${spread(key, row)}`; cell.append(element("small", spread(key, row))); }
      return cell;
    }));
    return line;
  }));
  at("found").textContent = `${found.length.toLocaleString("en")} configurations` +
    (part.length < found.length ? `, the first ${part.length} shown` : "");
  at("more").hidden = part.length === found.length;
  for (const head of at("heads").children) {
    const mine = head.dataset.key === sort;
    head.setAttribute("aria-sort", mine ? (down ? "descending" : "ascending") : "none");
  }
}
function heads() {
  at("heads").append(...data.table.map(key => {
    const head = element("th", null, {"data-key": key, scope: "col"}), button = element("button", named(key), {type: "button"});
    button.onclick = () => {
      state.down = state.sort === key ? !state.down : columns[key].better === "higher";
      state.sort = key;
      table();
    };
    head.append(button);
    return head;
  }));
  const open = event => {
    const line = event.target.closest("tr");
    if (line && (event.type === "click" || event.key === "Enter")) pin(Number(line.dataset.row));
  };
  at("rows").onclick = open;
  at("rows").onkeydown = open;
  at("filter").oninput = table;
  at("more").onclick = () => { state.all = true; table(); };
}

// --- loss curves and main effects ---------------------------------------------------------------
function losses() {
  const curves = data.losses.flatMap(({label, epochs, train, validation, colour}) => [
    {name: plain(label), legendgroup: label, x: epochs, y: validation, mode: "lines+markers", marker: {size: 5},
     line: {color: colour, width: 2}, hovertemplate: "%{y:.4~g}<extra>%{fullData.name}</extra>"},
    {name: plain(label), legendgroup: label, x: epochs, y: train, mode: epochs.length > 1 ? "lines" : "markers", showlegend: false,
     marker: {size: 7, symbol: "circle-open"},
     line: {color: colour, width: 1, dash: "dot"}, hovertemplate: "%{y:.4~g} on training patterns<extra></extra>"},
  ]);
  const longest = curves.reduce((most, {x}) => Math.max(most, ...x.slice(-1)), 1);
  Plotly.newPlot("losses", curves, {
    ...OF_CURVES,
    xaxis: {...AXIS, title: {text: "epoch"}, dtick: Math.max(1, Math.ceil(longest / 10)), range: [0.5, longest + 0.5]},
    yaxis: {...AXIS, title: {text: "loss"}, type: "log", ...logTicks(curves.flatMap(({y}) => y.filter(v => v > 0)))},
  }, CONFIG);
}
function correlations() {
  const {curves, threshold, kind} = data.correlations;
  const lines = curves.map(({label, colour, frequency, correlation}) => (
    {name: plain(label), legendgroup: label, x: frequency, y: correlation, mode: "lines", line: {color: colour, width: 2},
     hovertemplate: "%{y:.3f} at %{x:.3f} px⁻¹<extra>%{fullData.name}</extra>"}));
  const ends = curves.filter(({resolved}) => resolved > 0 && resolved < 0.5).map(({label, colour, resolved, at: height}) => (
    {name: plain(label), legendgroup: label, showlegend: false, x: [resolved], y: [height], mode: "markers",
     marker: {symbol: "circle-open", size: 11, color: colour, line: {width: 2.5}},
     hovertemplate: `resolved up to ${resolved.toFixed(3)} px⁻¹, half period ${(0.5 / resolved).toFixed(2)} px<extra>%{fullData.name}</extra>`}));
  const {frequency, half_bit} = curves[0];
  const against = {truth: "with the truth", reference: "with the reference", halves: "of two halves of the frames"};
  const bounds = [[[0, 0.5], [threshold, threshold], kind === "halves" ? "1/7" : "one half", "dash"], [frequency, half_bit, "half-bit", "dot"]]
    .map(([x, y, name, dash]) => ({name, x, y, mode: "lines", line: {color: "#444", width: 1.2, dash}, hoverinfo: "skip"}));
  Plotly.newPlot("correlations", [...bounds, ...lines, ...ends], {
    ...OF_CURVES,
    xaxis: {...AXIS, title: {text: "spatial frequency [1/px]"}, range: [0, 0.5]},
    yaxis: {...AXIS, title: {text: `phase correlation ${against[kind]}`}, range: [-0.12, 1.04]},
  }, CONFIG);
}
function effects() {
  for (const [index, {quality, factors}] of data.effects.entries()) {
    const layout = {...LAYOUT, height: 320, margin: {l: 70, r: 16, t: 34, b: 50}, showlegend: false,
                    grid: {rows: 1, columns: factors.length}, yaxis: {...AXIS, title: {text: plain(quality)}}, annotations: []};
    const traces = factors.map(({name, levels, numbers, log, ordered, mean, low, high, note}, i) => {
      const suffix = i ? String(i + 1) : "";
      const scale = !numbers ? {type: "category"} : log ? {type: "log", ...logTicks(numbers, 30)} : {nticks: 6};
      layout["xaxis" + suffix] = {...AXIS, ...scale, title: {text: plain(name)}};
      layout["yaxis" + suffix] = {...AXIS, ...layout["yaxis" + suffix], ...(i ? {matches: "y", showticklabels: false} : {})};
      layout.annotations.push({xref: `x${suffix} domain`, yref: "paper", x: 0.5, y: 1.1, text: plain(note), showarrow: false,
                               font: {size: 12, color: "#555"}});
      return {x: numbers ?? levels.map(plain), y: mean, text: levels.map(plain), xaxis: "x" + suffix, yaxis: "y" + suffix,
              mode: ordered ? "lines+markers" : "markers",
              line: {color: "#b5b5b5", width: 1}, marker: {color: "#0072B2", size: 9},
              error_y: low ? {type: "data", symmetric: false, array: high.map((h, j) => h === null ? 0 : h - mean[j]),
                        arrayminus: low.map((l, j) => l === null ? 0 : mean[j] - l), thickness: 1.2, width: 4, color: "#0072B2"} : undefined,
              hovertemplate: "%{text}: %{y:.4~f}<extra></extra>"};
    });
    Plotly.newPlot("effects-" + index, traces, layout, {...CONFIG, displayModeBar: false});
  }
}

if (data.series.length) {
  heads();
  choose("series", data.series.map(({name}) => name), openSeries);
  at("unbrush").onclick = () => { state.brushed = null; parallel(); brush(); };
  openSeries(0);
}
if (data.losses.length) losses();
if (data.correlations) correlations();
effects();
document.body.dataset.ready = "yes";
