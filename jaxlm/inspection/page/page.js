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
    ({ title: words(title, { n: n + 1 }), key, weights, hidden, rows, columns, own: rows === target });
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

// Logits at a position, of all tokens or labels or of those in `ids`, and what the rest weigh together.
function scoresAt(position) {
  const { logits } = state.run, rest = () => -Infinity;
  if (DATA.kind === "label") return { ids: null, logits, rest };
  if (!state.model) {
    const [ids, known, beside] = DATA.recorded.likeliest[position];
    return { ids, logits: known, rest: (temperature) => beside[Math.round(temperature / DATA.recorded.step) - 1] ?? -Infinity };
  }
  const V = config.vocab_size;
  return { ids: null, logits: logits.subarray(position * V, (position + 1) * V), rest };
}

// Whether a token belongs to the model's own form around a text and stays.
function isFixed(t) {
  const [before, after] = DATA.around;
  return t < before || t >= state.ids.length - after;
}

// Takes a token out, if it is not the last of the text; the chosen one stays chosen.
function takeOut(t) {
  const [before, after] = DATA.around;
  if (state.ids.length <= before + after + 1 && !state.source) return;
  if (t < state.position) state.position -= 1;
  retoken(state.ids.toSpliced(t, 1));
}

// Puts a token in place of the chosen mask, or behind the chosen token.
function put(id) {
  const { ids, position } = state;
  if (DATA.kind === "mask") {
    const next = ids.findIndex((other, t) => other === DATA.mask && t > position);
    state.position = next < 0 ? position : next;
    return retoken(ids.with(position, id), filled(position, id));
  }
  const kept = ids.slice(0, position + 1), shorter = state.source ? kept : kept.slice(-(T_MAX - 1));
  state.position = shorter.length;
  retoken([...shorter, id]);
}

// The text in the box with a token in place of the mask at a position.
function filled(position, id) {
  const mask = DATA.names[DATA.mask], before = state.ids.slice(0, position).filter((other) => other === DATA.mask).length;
  let count = 0;
  return $("text").value.replaceAll(mask, (found) => (count++ === before ? DATA.names[id].replace(/^##/, "") : found));
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
  const { encoder } = state, unknown = encoder && (state.source ?? state.ids).includes(encoder.unknown);
  const differs = encoder && !state.source && String(encoder.encode($("text").value)) !== String(state.ids);
  const letters = ["T", ...(state.source ? ["S"] : []), "D", "N", "V", ...(DATA.kind === "label" ? ["C"] : [])];
  $("letters").textContent = words("shapes") + letters.map((letter) => words("letter" + letter)).join(words("comma"));
  $("notice").hidden = !unknown && !differs;
  $("notice").textContent = unknown ? words("unknownRead", { token: `“${encoder.names[encoder.unknown]}”` }) : words("boxDiffers");
  const parts = [words(state.model ? "status" : "statusRecorded", { params, ms: state.ms?.toFixed(0) })];
  const isReference = String(state.ids) === String(DATA.ids)
    && String(state.source) === String(DATA.source ?? null) && state.off.size === 0;
  if (state.model && isReference) {
    const { position, values } = DATA.reference;
    const from = position === null ? state.run.logits : scoresAt(position).logits;
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

function allOn() {
  state.off.clear();
  compute();
  render();
}

function retoken(ids, text = null) {
  state.ids = ids.slice(0, T_MAX);
  state.cell = null;
  if (!state.source) complain(null); // what is wrong in the box of a source stays there
  if (state.encoder && !state.source) $("text").value = text ?? state.encoder.text(state.ids);
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
  if (ids.length === state.encoder.before.length + state.encoder.after.length) return complain(words("empty"));
  if (ids.length > T_MAX) return complain(words("tooLong", { limit: T_MAX, n: ids.length }));
  if (DATA.kind === "mask" && !ids.includes(DATA.mask)) return complain(words("noMask", { mask: DATA.names[DATA.mask] }));
  complain(null);
  state.cell = null;
  if (state.source) {
    state.source = ids;
    state.ids = state.model.written(ids, DATA.ids[0], DATA.end, T_MAX);
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
  return { T, embedding: { token, place, x }, layers: found, logits };
}

open();
