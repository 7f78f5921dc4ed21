// The page: what is shown, what is chosen, and what happens when that changes.
"use strict";

const $ = (id) => document.getElementById(id);
const DATA = JSON.parse($("data").textContent);
const { config } = DATA;
const T_MAX = config.max_seq_len;
let readyAt = null; // milliseconds after the page began to open

const state = {
  language: DATA.language, ids: DATA.ids, position: DATA.position, layer: 0, head: 0, cell: null,
  source: DATA.source ?? null, off: new Set(), temperature: 1, topK: Infinity, topP: 1, run: null, model: null,
};

function words(key, values = {}) {
  const text = WORDS[state.language][key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

function shown(id, names = DATA.names) {
  const name = names[id] || "#" + id;
  return name.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/ /g, "␣");
}

const quoted = (id) => `“${shown(id)}”`;

// The same of a source, whose vocabulary may be another.
const read = (id) => (DATA.source_names ? shown(id, DATA.source_names) : shown(id));

// What the page shows one at a time: the blocks of a text, or those of both sides and between them.
function views() {
  const { run, ids, source } = state, target = ids.map((id) => shown(id));
  const view = (title, key, n, { weights, hidden }, rows, columns = rows) =>
    ({ title: words(title, { n: n + 1 }), key, weights, hidden, rows, columns });
  if (!source) return run.layers.map((block, i) => view("layer", String(i), i, block, target));
  const names = source.map(read);
  return [
    ...run.source.layers.map((block, i) => view("encoderLayer", "encoder." + i, i, block, names)),
    ...run.layers.flatMap((block, i) => [
      view("decoderLayer", "decoder." + i, i, block, target),
      view("crossLayer", "cross." + i, i, { weights: block.cross, hidden: null }, target, names),
    ]),
  ];
}

// A step: its title, one sentence, the shape of what leaves it, and its figures.
function step(key, sentence, shape, values, ...figures) {
  const number = ++step.count;
  return make("section", { id: "step-" + key },
    make("h2", {}, make("span", { class: "number" }, String(number)), words(key)),
    make("p", {}, words(sentence, values)), ...figures,
    shape ? make("p", { class: "shape" }, "↓ ", make("code", {}, shape)) : "");
}

// A figure with the buttons that save it.
function figure(name, caption, picture, content, value) {
  return make("figure", {},
    make("div", { class: "caption" }, make("figcaption", {}, caption),
      make("button", { type: "button", "aria-label": `PNG ${name}`, onclick: () => saveCanvas(picture(), name) }, words("png")),
      make("button", { type: "button", "aria-label": `JSON ${name}`, onclick: () => saveJson(value, name) }, words("json"))),
    content);
}

function matrix(name, values, rows, columns, colour, caption) {
  const canvas = make("canvas", { class: "strip", role: "img", "aria-label": `${name} ${rows} × ${columns}` });
  drawMatrix(canvas, values, rows, columns, colour);
  canvas.style.height = Math.min(180, Math.max(28, rows * 5)) + "px";
  return figure(name, caption, () => canvas, canvas, { shape: [rows, columns], values });
}

function bars(rows, mark = null) {
  return make("table", { class: "bars" }, make("tbody", {}, ...rows.map((row, i) =>
    make("tr", { class: row.cut ? "cut" : i === mark ? "mark" : null },
      make("th", { scope: "row" }, row.name),
      make("td", {}, make("span", { class: "bar", style: `width:${Math.max(0.3, 100 * row.share)}%` })),
      make("td", { class: "share" }, percent(row.share))))));
}

function tokensStep() {
  const { ids, run } = state;
  const chips = ids.map((id, t) => make("button", {
    type: "button", class: "chip hue" + (t % 5), "aria-pressed": String(t === state.position),
    onclick: () => choose({ position: t }),
    onkeydown: (event) => { if (event.key === "Delete" && state.model && ids.length > 1) retoken(ids.toSpliced(t, 1)); },
  }, make("b", {}, shown(id)), make("small", {}, String(id))));
  const box = make("div", { class: "chips" }, ...chips);
  if (state.model && !state.encoder && !state.source) box.append(tokenPicker());
  const note = state.model && !state.encoder ? make("p", { class: "note" }, words("tokensOnly")) : "";
  const value = ids.map((id) => ({ id, token: DATA.names[id] }));
  const picture = () => drawBars(ids.map((id) => ({ name: `${shown(id)}  ${id}`, share: 0 })));
  const sides = state.source ? [sourceFigure(), figure("target", words("target"), picture, box, value)]
    : [figure("tokens", "", picture, box, value)];
  const shape = state.source ? `(S), (T) = (${run.source.T}), (${run.T})` : `(T) = (${run.T})`;
  return step("tokens", "tokensText", shape, { V: config.vocab_size.toLocaleString() }, note, ...sides);
}

function sourceFigure() {
  const chips = state.source.map((id, s) =>
    make("span", { class: "chip hue" + (s % 5) }, make("b", {}, read(id)), make("small", {}, String(id))));
  const picture = () => drawBars(state.source.map((id) => ({ name: `${read(id)}  ${id}`, share: 0 })));
  const value = state.source.map((id) => ({ id, token: read(id) }));
  return figure("source", words("source"), picture, make("div", { class: "chips" }, ...chips), value);
}

function tokenPicker() {
  const list = make("datalist", { id: "vocabulary" });
  const input = make("input", {
    list: "vocabulary", placeholder: words("add"), "aria-label": words("add"),
    oninput: () => {
      const near = DATA.names.map((name, id) => [name, id]).filter(([name]) => name.includes(input.value)).slice(0, 30);
      list.replaceChildren(...near.map(([name]) => make("option", { value: name })));
    },
    onchange: () => {
      const id = DATA.names.indexOf(input.value);
      if (id >= 0) retoken([...state.ids, id]);
    },
  });
  return make("span", { class: "picker" }, input, list);
}

function embeddingStep() {
  const { T, embedding, source } = state.run, D = embedding.x.length / T;
  const place = { learned: "plusLearned", sinusoidal: "plusSinusoidal", rotary: "plusRotary", none: "plusNone", relative: "plusRelative" };
  const added = ["learned", "sinusoidal"].includes(config.positions);
  const whole = scaled(new Float32Array([...embedding.token, ...embedding.place, ...embedding.x]));
  const strip = (i, name) => matrix(name, whole.subarray(i * T * D, (i + 1) * T * D), T, D, signed, words(name));
  const strips = added ? [strip(0, "tokenVectors"), strip(1, "placeVectors"), strip(2, "sumVectors")] : [strip(2, "tokenVectors")];
  if (source) {
    const both = [["source", source], ["target", state.run]].map(([name, side]) =>
      matrix(name, scaled(side.embedding.x), side.T, D, signed, words(name)));
    strips.splice(0, strips.length, ...both);
  }
  return step("embedding", "embeddingText", `(T) → (T, D) = (${T}, ${config.d_model})`,
    { D: config.d_model, plus: words(place[config.positions]) }, make("div", { class: "strips" }, ...strips));
}

function blockStep() {
  const { layer, head } = state, all = views(), block = all[layer];
  const { rows, columns } = block, T = rows.length, S = columns.length;
  const tabs = make("div", { class: "tabs", role: "group", "aria-label": words("layers") },
    ...all.map(({ title }, i) => make("button", {
      type: "button", "aria-pressed": String(i === layer), onclick: () => choose({ layer: i, cell: null }),
    }, title)));
  const small = block.weights.map((map, n) => {
    const canvas = make("canvas", { "aria-hidden": "true" }), key = `${block.key},${n}`;
    drawMatrix(canvas, map, T, S, share);
    const isOff = state.off.has(key);
    return make("div", { class: "head" + (isOff ? " off" : "") },
      make("button", { type: "button", class: "map", "aria-pressed": String(n === head), onclick: () => choose({ head: n, cell: null }),
        "aria-label": words("head", { n: n + 1 }) }, canvas, make("span", {}, words("head", { n: n + 1 }))),
      state.model ? make("button", { type: "button", class: "switch", role: "switch", "aria-checked": String(!isOff),
        "aria-label": block.title + ", " + words("head", { n: n + 1 }), onclick: () => toggle(key) },
        words(isOff ? "off" : "on")) : "");
  });
  const canvas = make("canvas", { class: "large", tabindex: "0", role: "img", "aria-describedby": "looks",
    "aria-label": block.title + ", " + words("head", { n: head + 1 }) });
  const looks = make("p", { id: "looks", "aria-live": "polite" }, " ");
  const map = block.weights[head];
  let find = null;
  const point = (cell) => {
    if (!cell) return;
    state.cell = cell;
    const [t, s] = cell;
    looks.textContent = words("looks", { query: `“${rows[t]}”`, key: `“${columns[s]}”`, share: percent(map[t * S + s]) });
    find = drawHead(canvas, map, rows, columns, cell);
  };
  canvas.addEventListener("pointermove", (event) => {
    const at = find(event.offsetX, event.offsetY);
    if (at && String(at) !== String(state.cell)) point(at);
  });
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const by = steps[event.key];
    if (!by) return;
    event.preventDefault();
    const [t, s] = state.cell ?? [T - 1, S - 1];
    const within = (i, n) => Math.min(n - 1, Math.max(0, i));
    point([within(t + by[0], T), within(s + by[1], S)]);
  });
  const large = figure(`attention_${layer + 1}_${head + 1}`, "", () => canvas, make("div", { class: "frame" }, canvas, looks),
    { block: block.title, head: head + 1, tokens: rows, ...(S === T && rows === columns ? {} : { source: columns }), weights: map });
  requestAnimationFrame(() => {
    find = drawHead(canvas, map, rows, columns, state.cell);
    point(state.cell);
  });
  const F = block.hidden ? block.hidden.length / T : 0, keys = rows === columns ? "T" : "S";
  const neurons = F ? matrix(`feed_forward_${layer + 1}`, scaled(block.hidden), T, F, signed,
    words(F === config.d_ff ? "mlp" : "mlpPooled", { F: config.d_ff.toLocaleString() })) : "";
  return step("block", state.source ? "blockBothText" : "blockText",
    `(T, D) → (N, T, ${keys}) → (T, D) = (${config.num_heads}, ${T}, ${S}) → (${T}, ${config.d_model})`,
    { L: config.num_layers }, tabs, make("p", { class: "note" }, words("heads")),
    make("div", { class: "heads" }, ...small), large, neurons);
}

function lensStep() {
  const rows = state.lens(), depth = (i) => words(i ? "layer" : "start", { n: i });
  const table = make("table", { class: "lens" }, make("tbody", {}, ...rows.map((row, i) =>
    make("tr", {}, make("th", { scope: "row" }, depth(i)), ...row.map(({ id, share: part }) =>
      make("td", { style: `background:rgba(23,78,166,${(0.75 * part).toFixed(3)})`, class: part > 0.6 ? "deep" : null },
        shown(id), make("small", {}, percent(part))))))));
  const picture = () => drawBars(rows.map((row, i) => ({ name: `${depth(i)}: ${shown(row[0].id)}`, share: row[0].share })));
  const value = rows.map((row, i) => ({ after: i, likeliest: row.map(({ id, share: part }) => ({ token: DATA.names[id], probability: part })) }));
  return step("lens", DATA.kind === "mask" ? "lensMaskText" : "lensText", `(T, D) → (V) = (${config.vocab_size.toLocaleString()})`,
    { token: quoted(state.ids[state.position]) }, figure("lens", "", picture, make("div", { class: "scroll" }, table), value));
}

function logitsAt(position) {
  const { logits } = state.run, V = DATA.kind === "label" ? config.labels.length : config.vocab_size;
  return DATA.kind === "label" ? logits : logits.subarray(position * V, (position + 1) * V);
}

function slider(key, name, min, max, stepSize, value, text, set) {
  const output = make("output", {}, text(value));
  const input = make("input", { type: "range", id: key, min, max, step: stepSize, value, oninput: () => {
    const number = Number(input.value);
    output.textContent = text(number);
    set(number);
    refreshProbabilities();
  } });
  return make("label", { for: key }, name, input, output);
}

function likeliest() {
  const { left, order } = distribution(logitsAt(state.position), DATA.kind === "label" ? 1 : state.temperature, state.topK, state.topP);
  const whole = softmax(logitsAt(state.position));
  const name = (i) => (DATA.kind === "label" ? config.labels[i] : shown(i));
  return { left, order, rows: order.slice(0, 12).map((i) => ({ id: i, name: name(i), share: left[i] || whole[i], cut: left[i] === 0 })) };
}

function probabilitiesStep() {
  const label = DATA.kind === "label", V = config.vocab_size;
  const content = make("div", { id: "bars" });
  const sentence = { next: "nextText", mask: "maskText", label: "labelText" }[DATA.kind];
  const sliders = label ? "" : make("div", { class: "sliders" },
    slider("temperature", words("temperature"), 0, 2, 0.05, state.temperature, (x) => x.toFixed(2), (x) => (state.temperature = x)),
    slider("top-k", "top-k", 1, Math.min(50, V), 1, Math.min(state.topK, 50, V), (x) => (x >= Math.min(50, V) ? words("all") : String(x)),
      (x) => (state.topK = x >= Math.min(50, V) ? Infinity : x)),
    slider("top-p", "top-p", 0.05, 1, 0.05, state.topP, (x) => x.toFixed(2), (x) => (state.topP = x)));
  const value = { get tokens() { return likeliest().rows; } };
  const shape = label ? `(C) = (${config.labels.length})` : `(V) = (${V.toLocaleString()})`;
  return step("probabilities", sentence, shape, { V: V.toLocaleString(), C: config.labels?.length, token: quoted(state.ids[state.model ? state.position : DATA.position]) },
    sliders, figure("probabilities", "", () => drawBars(likeliest().rows), content, value));
}

function refreshProbabilities() {
  const { rows } = likeliest();
  $("bars").replaceChildren(bars(rows, 0));
  const best = rows[0];
  $("answer").textContent = words("answer", { name: best.name, share: percent(best.share) });
}

function choiceStep() {
  const answer = make("p", { id: "answer", "aria-live": "polite" });
  if (DATA.kind === "label") return step("labelChoice", "", "", {}, answer);
  const put = (id) => {
    if (DATA.kind === "mask") return retoken(state.ids.with(state.position, id));
    state.position = state.ids.length;
    retoken([...state.ids.slice(-(T_MAX - 1)), id]);
  };
  const drawn = () => {
    const { left, order } = likeliest();
    let mark = Math.random();
    return order.find((i) => (mark -= left[i]) <= 0) ?? order[0];
  };
  const buttons = state.model ? make("div", { class: "choices" },
    make("button", { type: "button", id: "greedy", onclick: () => put(likeliest().order[0]) }, words("greedy")),
    make("button", { type: "button", id: "sample", onclick: () => put(drawn()) }, words("sample"))) : "";
  const mask = DATA.kind === "mask";
  return step("choice", mask ? "choiceMaskText" : "choiceText", mask ? "" : "(T) → (T + 1)", {}, answer, buttons);
}

// Makes elements anew and gives the focus to the one that had it.
function keepingFocus(change) {
  const name = (element) => element?.getAttribute("aria-label") || element?.id || element?.textContent;
  const focused = name(document.activeElement), inside = document.activeElement !== document.body;
  change();
  if (!inside || document.activeElement !== document.body) return;
  const again = [...document.querySelectorAll("button, canvas, input")].find((element) => name(element) === focused);
  again?.focus({ preventScroll: true });
}

function render() {
  keepingFocus(renderAll);
}

function renderBlock() {
  keepingFocus(() => {
    step.count = 2;
    $("step-block").replaceWith(blockStep());
  });
}

function heading(key) {
  if (key === "intro" && !state.model) return "introRecorded";
  return key === "text" && state.source ? "source" : key;
}

function renderAll() {
  document.documentElement.lang = state.language;
  $("language").textContent = words("language");
  for (const element of document.querySelectorAll("[data-t]"))
    element.textContent = words(heading(element.dataset.t));
  step.count = 0;
  const steps = [tokensStep(), embeddingStep(), blockStep()];
  if (DATA.kind !== "label") steps.push(lensStep());
  $("steps").replaceChildren(...steps, probabilitiesStep(), choiceStep());
  refreshProbabilities();
  status();
}

function status() {
  const params = DATA.num_params.toLocaleString();
  const parts = [words(state.model ? "status" : "statusRecorded", { params, ms: state.ms?.toFixed(0) })];
  const isReference = String(state.ids) === String(DATA.ids)
    && String(state.source) === String(DATA.source ?? null) && state.off.size === 0;
  if (state.model && isReference) {
    const { position, values } = DATA.reference;
    const from = position === null ? state.run.logits : logitsAt(position);
    state.difference = values.reduce((most, x, i) => Math.max(most, Math.abs(x - from[i])), 0);
    parts.push(words("agreement", { difference: state.difference.toExponential(1) }));
  }
  $("status").textContent = parts.join(" · ");
}

function compute() {
  const start = performance.now();
  if (state.model) state.run = state.model.forward(state.ids, state.off, null, state.source);
  state.position = Math.min(state.position, state.ids.length - 1);
  state.ms = performance.now() - start;
}

function choose(changes) {
  Object.assign(state, changes);
  if ("layer" in changes || "head" in changes) renderBlock();
  else render();
}

function toggle(key) {
  if (!state.off.delete(key)) state.off.add(key);
  compute();
  render();
}

function retoken(ids) {
  state.ids = ids.slice(0, T_MAX);
  state.cell = null;
  if (state.encoder && !state.source) $("text").value = state.encoder.text(state.ids);
  compute();
  render();
}

function complain(message) {
  $("problem").hidden = !message;
  $("problem").textContent = message ?? "";
}

function typed() {
  const text = $("text").value, ids = state.encoder.encode(text);
  if (ids === null) return complain(words("unknown", { character: [...text].find((x) => !state.encoder.ids.has(x)) }));
  if (ids.length === 0) return complain(words("empty"));
  if (ids.length > T_MAX) return complain(words("tooLong", { limit: T_MAX, n: ids.length }));
  if (DATA.kind === "mask" && !ids.includes(DATA.mask)) return complain(words("noMask", { mask: DATA.names[DATA.mask] }));
  complain(null);
  state.cell = null;
  if (state.source) {
    state.source = ids;
    state.ids = state.model.written(ids, DATA.start, DATA.end, T_MAX);
  } else {
    state.ids = ids;
  }
  state.position = state.source ? state.ids.length - 1 : DATA.kind === "mask" ? ids.indexOf(DATA.mask) : ids.length - 1;
  compute();
  render();
}

const top5 = (logits) => {
  const chances = softmax(logits);
  return [...chances.keys()].sort((a, b) => chances[b] - chances[a]).slice(0, 5).map((id) => ({ id, share: chances[id] }));
};

async function open() {
  $("name").textContent = DATA.title;
  $("text").value = DATA.text;
  const bytes = await unpacked($("weights").textContent.trim());
  if (DATA.tensors) {
    state.model = new Model(config, readWeights(bytes, DATA.tensors));
    state.lens = () => state.model.lens(state.run, state.position).map(top5);
    const encoder = DATA.tokenizer && new Encoder(DATA.tokenizer);
    // Only an encoder that cuts the text as jaxlm does is used.
    if (encoder && String(encoder.encode(DATA.text)) === String(DATA.source ?? DATA.ids)) state.encoder = encoder;
  } else {
    state.run = recordedRun(bytes, DATA.recorded);
    state.lens = () => DATA.recorded.lens.map((place) => place[state.position].map(([id, part]) => ({ id, share: part })));
  }
  $("text").disabled = !state.encoder;
  let waiting = null;
  $("text").addEventListener("input", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(typed);
  });
  $("language").addEventListener("click", () => choose({ language: state.language === "zh" ? "en" : "zh" }));
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) render();
    width = innerWidth;
  });
  compute();
  if (state.source) state.layer = views().length - 1; // where the target reads the source
  render();
  readyAt = performance.now();
  document.documentElement.dataset.ready = "yes";
}

// What jaxlm recorded, in the form of the model's own run. Bytes hold, in order, the attention of
// every block, then pictures of the vectors and of the neurons.
function recordedRun(bytes, { T, heads, columns, neurons, layers, logits }) {
  let at = 0;
  const take = (size, signedBytes) => {
    const part = bytes.subarray(at, at + size);
    at += size;
    return Float32Array.from(part, (x) => (signedBytes ? ((x << 24) >> 24) / 127 : x / 255));
  };
  const maps = Array.from({ length: layers }, () => Array.from({ length: heads }, () => take(T * T, false)));
  const [token, place, x] = [0, 1, 2].map(() => take(T * columns, true));
  const found = maps.map((weights) => ({ weights, hidden: take(T * neurons, true) }));
  const whole = { subarray: () => Float32Array.from(logits) };
  return { T, embedding: { token, place, x }, layers: found, logits: DATA.kind === "label" ? logits : whole };
}

open();
