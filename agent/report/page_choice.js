// The part of report.html's program that is about the choice: the ladder of prices, and the front that
// answers which configuration has a quality at a cost. Before page.js, whose constants its functions use.
"use strict";
const NOTCHES = 1000;  // of a slider
// Not by Math.min(...values): a large study has more values than a call may have arguments.
const lowest = values => values.reduce((a, b) => Math.min(a, b), Infinity);
const highest = values => values.reduce((a, b) => Math.max(a, b), -Infinity);

// --- the choice at every price -------------------------------------------------------------------
function ladder() {
  const {choice} = data.series[state.series];
  at("ladder-of-prices").hidden = !choice;
  if (!choice) return;
  const {price, rungs} = choice;
  const known = [...rungs.map(({low}) => low), ...choice.picks].filter(p => p > 0);
  const [low, high] = known.length ? [lowest(known) / 2, highest(known) * 2] : [1e-3, 0.1];
  const best = data.series[state.series].recommended;
  const told = ({low, high}) => high === null ? (low > 0 ? `from ${round(low, 3)} up` : "whatever the price")
    : low > 0 ? `from ${round(low, 3)} to ${round(high, 3)}` : `below ${round(high, 3)}`;
  // On two lines: long names would leave the bars and the axis' title no room.
  const names = rungs.map(({row}) => plain(rows.label[row]).replace(", ", ",<br>"));
  const ends = rungs.map(rung => [Math.max(rung.low, low), Math.min(rung.high ?? high, high)]);
  const shapes = [], annotations = [];
  if (price > 0) {
    shapes.push({type: "line", x0: price, x1: price, yref: "paper", y0: 0, y1: 1, line: {color: "black", width: 1.2, dash: "dash"}});
    annotations.push({x: Math.log10(price), yref: "paper", y: 1, yanchor: "bottom", showarrow: false,
                      text: `price ${price}`, font: {size: 12}});
  }
  Plotly.react("ladder", [{
    type: "bar", orientation: "h", y: names, base: ends.map(([from]) => from), x: ends.map(([from, to]) => to - from),
    customdata: rungs.map(({row}) => row), text: rungs.map(told), textposition: "none",
    hovertemplate: "%{y}<br>is the choice at prices %{text}<extra></extra>",
    marker: {color: rungs.map(({row}) => row === best ? "#0072b2" : "#c4c9cf"), line: {color: INK, width: 0.8}},
  }], {
    ...LAYOUT, height: 130 + 34 * rungs.length, margin: {l: 70, r: 16, t: 30, b: 80}, shapes, annotations, bargap: 0.35,
    xaxis: {...AXIS, type: "log", range: [Math.log10(low), Math.log10(high)], title: {text: plain(choice.axis).replace(" must", "<br>must")}, ...logTicks([low, high])},
    yaxis: {...AXIS, type: "category", automargin: true, autorange: "reversed"},
  }, STILL);
}

// --- which configuration has a quality at a cost -------------------------------------------------
// Towards what allows more, so that nothing that is drawn within a bound falls out by rounding.
function outward(value, least, digits) {
  const unit = 10 ** -(digits || 2 - Math.floor(Math.log10(Math.abs(value) || 1)));
  return Number(((least ? Math.floor(value / unit + 1e-6) : Math.ceil(value / unit - 1e-6)) * unit).toPrecision(12));
}
// The two questions of a front, each with the range in which configurations lie.
function questions() {
  const {choice, fronts} = data.series[state.series], {x, y} = fronts[state.front];
  const asked = [["quality", y, columns[y].better === "higher"], ["cost", x, false]];
  return asked.map(([name, key, least]) => {
    const values = choice.candidates.map(row => rows[key][row]).filter(value => value !== null);
    const low = lowest(values), high = highest(values), log = Boolean(columns[key].log) && low > 0;
    const [from, to] = log ? [Math.log(low), Math.log(high)] : [low, high];
    const value = notch => from + (to - from) * notch / NOTCHES;
    return {
      name, key, least, any: values.length > 0,
      bound: notch => outward(log ? Math.exp(value(notch)) : value(notch), least, columns[key].digits),
      notch: bound => to > from ? NOTCHES * ((log ? Math.log(bound) : bound) - from) / (to - from) : 0,
      meets: (row, bound) => rows[key][row] !== null && (least ? rows[key][row] >= bound : rows[key][row] <= bound),
      short: (row, bound) => rows[key][row] === null ? Infinity : Math.max(0, (least ? 1 : -1) * (bound - rows[key][row])),
      words: bound => `${columns[key].label} at ${least ? "least" : "most"} ${shown(key, bound)}${unitOf(key)}`,
      option: bound => `--at-${least ? "least" : "most"} ${key}=${bound}`,
    };
  });
}
const unitOf = key => columns[key].unit ? ` ${columns[key].unit}` : "";
// The rule of the study among some candidates, cheapest first: of equal ones the first.
function chosenOf({gain, paid, price, tolerance}, places) {
  if (tolerance === null) {
    const worth = places.map(i => gain[i] - price * Math.log2(paid[i])), best = highest(worth);
    return places[worth.findIndex(value => value >= best - 1e-9)];
  }
  const best = highest(places.map(i => gain[i])), near = places.filter(i => gain[i] >= best - tolerance - 1e-9);
  return near.filter(i => paid[i] === paid[near[0]]).reduce((a, b) => gain[b] > gain[a] ? b : a);
}
// What misses the bounds by least, each in parts of what the farthest misses it by.
function nearestOf(candidates, asked, bounds) {
  const missed = candidates.map(() => 0);
  asked.forEach(({key, short}, k) => {
    const off = candidates.map(row => rows[key][row] === null ? 0 : Math.abs(rows[key][row] - bounds[k]));
    const spread = highest(off) || 1;
    candidates.forEach((row, i) => { missed[i] = Math.max(missed[i], Math.min(1, short(row, bounds[k]) / spread)); });
  });
  return missed.indexOf(lowest(missed));
}
// Asks the front that is shown; the answer is drawn by scatter().
function answer() {
  const {choice, fronts} = data.series[state.series], asked = questions();
  const bounds = asked.map(({name}) => Number(at(name).value));
  const meeting = choice.candidates.flatMap((row, i) => asked.every(({meets}, k) => meets(row, bounds[k])) ? [i] : []);
  const place = meeting.length ? chosenOf(choice, meeting) : nearestOf(choice.candidates, asked, bounds);
  const row = choice.candidates[place];
  const has = asked.map(({key}) => `${columns[key].label} ${shown(key, rows[key][row])}${unitOf(key)}`).join(", ");
  const wanted = asked.map(({words}, k) => words(bounds[k])).join(" and ");
  const box = at("answer");
  box.replaceChildren();
  if (meeting.length === 1) box.append(`Only one configuration has ${wanted}: `, element("strong", rows.label[row]), `, with ${has}.`);
  else if (meeting.length) box.append(`Of ${meeting.length} configurations with ${wanted} the choice is `, element("strong", rows.label[row]), `, with ${has}.`);
  else box.append(`No configuration has ${wanted}. The nearest is `, element("strong", rows.label[row]), `: it has ${has}.`);
  if (fronts[state.front].asks) box.append(" ", element("code", [choice.options, ...asked.map(({option}, k) => option(bounds[k]))].join(" ").trim()));
  const excludes = asked.map(({meets}, k) => choice.candidates.some(row => !meets(row, bounds[k])));
  state.answer = {row, bounds, excludes, least: asked[0].least, met: meeting.length > 0};
}
function ask() {
  const {choice} = data.series[state.series], asked = choice && data.series[state.series].fronts[state.front] ? questions() : [];
  state.answer = null;
  at("ask").hidden = at("answer").hidden = !asked.length || !asked.every(({any}) => any);
  if (at("ask").hidden) return;
  for (const {name, key, least, bound, notch} of asked) {
    const number = at(name), slider = at(name + "-slider");
    at(name + "-name").textContent = `${named(key)} at ${least ? "least" : "most"}`;
    const all = least ? 0 : NOTCHES;
    slider.max = NOTCHES;
    slider.value = all;
    number.value = bound(all);
    slider.oninput = () => { number.value = bound(Number(slider.value)); answer(); scatter(); };
    number.oninput = () => {
      if (number.value === "" || !Number.isFinite(Number(number.value))) return;
      slider.value = notch(Number(number.value));
      answer(); scatter();
    };
  }
  answer();
}
