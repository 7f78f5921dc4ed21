// The steps of the way, each a section with its figures.
"use strict";

// A step: its title, one sentence, the shape of what leaves it, and its figures.
function step(key, sentence, shape, values, ...figures) {
  const number = ++step.count;
  return make("section", { id: "step-" + key },
    make("h2", {}, make("span", { class: "number" }, String(number)), words(key)),
    make("p", {}, words(sentence, values)), ...figures,
    shape ? make("p", { class: "shape" }, "↓ ", make("code", {}, shape)) : "");
}

// A figure with the buttons that save it as a file of that name; `title` says what it shows.
function figure(name, title, caption, picture, content, value) {
  const button = (kind, act) => make("button", { type: "button", onclick: act,
    "aria-label": words("saveAs", { kind: words(kind), title }) }, words(kind));
  return make("figure", {},
    make("div", { class: "caption" }, make("figcaption", {}, caption),
      button("png", () => saveCanvas(picture(), name)), button("json", () => saveJson(value, name))),
    content);
}

// What the colours of a figure mean, from one end to the other.
function scale(kind) {
  const [from, to] = kind === "signed" ? ["−", "+"] : ["0", "1"];
  return make("span", { class: "scale", "aria-hidden": "true" }, from, make("i", { class: kind }), to);
}

function matrix(name, title, values, rows, columns) {
  const canvas = make("canvas", { class: "strip", role: "img", "aria-label": `${title} ${rows} × ${columns}` });
  drawMatrix(canvas, values, rows, columns, signed);
  canvas.style.height = Math.min(180, Math.max(28, rows * 5)) + "px";
  const caption = make("span", {}, title, " ", scale("signed"));
  return figure(name, title, caption, () => canvas, canvas, { shape: [rows, columns], values });
}

function bars(rows, mark = null) {
  return make("table", { class: "bars" }, make("tbody", {}, ...rows.map((row, i) =>
    make("tr", { class: row.cut ? "cut" : i === mark ? "mark" : null },
      make("th", { scope: "row" }, row.name),
      make("td", {}, make("span", { class: "bar", style: `width:${Math.max(0.3, 100 * row.share)}%` })),
      make("td", { class: "share" }, percent(row.share))))));
}

// Tokens with their numbers; `buttons` gives each its behaviour, if it has one.
function chips(ids, name, buttons = null) {
  return make("div", { class: "chips" }, ...ids.map((id, t) =>
    make(buttons ? "button" : "span", { class: "chip hue" + (t % 5), ...buttons?.(t) },
      make("b", {}, name(id)), make("small", {}, String(id)))));
}

function tokensStep() {
  const { ids, run, source } = state;
  const box = chips(ids, shown, (t) => ({
    type: "button", "aria-pressed": String(t === state.position), onclick: () => choose({ position: t, cell: null }),
    onkeydown: (event) => { if (event.key === "Delete" && state.model && !isFixed(t)) takeOut(t); },
  }));
  if (state.model && !state.encoder && !source) box.append(tokenPicker());
  const note = state.model ? make("p", { class: "note" }, words(state.encoder ? "deleteKey" : "tokensOnly")) : "";
  const side = (key, list, name, content) => figure(key, words(key), key === "tokens" ? "" : words(key),
    () => drawTokens(list.map((id) => [name(id), String(id)])), content, list.map((id) => ({ id, token: name(id) })));
  const sides = source ? [side("source", source, read, chips(source, read)), side("target", ids, shown, box)]
    : [side("tokens", ids, shown, box)];
  const shape = source ? `(S), (T) = (${run.source.T}), (${run.T})` : `(T) = (${run.T})`;
  const sentence = DATA.kind === "label" ? "tokensLabelText" : "tokensText";
  return step("tokens", sentence, shape, { V: config.vocab_size.toLocaleString() }, note, ...sides);
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
      const id = DATA.names.indexOf(input.value), end = state.ids.length - DATA.around[1];
      if (id >= 0 && state.ids.length < T_MAX) retoken(state.ids.toSpliced(end, 0, id));
    },
  });
  return make("span", { class: "picker" }, input, list);
}

function embeddingStep() {
  const { T, embedding, source } = state.run, D = embedding.x.length / T;
  const place = { learned: "plusLearned", sinusoidal: "plusSinusoidal", rotary: "plusRotary", none: "plusNone", relative: "plusRelative" };
  const added = ["learned", "sinusoidal"].includes(config.positions);
  const whole = scaled(new Float32Array([...embedding.token, ...embedding.place, ...embedding.x]));
  const strip = (i, name) => matrix(name, words(name), whole.subarray(i * T * D, (i + 1) * T * D), T, D);
  const strips = added ? [strip(0, "tokenVectors"), strip(1, "placeVectors"), strip(2, "sumVectors")] : [strip(2, "tokenVectors")];
  if (source) {
    const both = [["source", source], ["target", state.run]].map(([name, side]) =>
      matrix(name + "_vectors", words(name), scaled(side.embedding.x), side.T, D));
    strips.splice(0, strips.length, ...both);
  }
  const shape = source ? `(S), (T) → (S, D), (T, D) = (${source.T}, ${config.d_model}), (${T}, ${config.d_model})`
    : `(T) → (T, D) = (${T}, ${config.d_model})`;
  return step("embedding", "embeddingText", shape,
    { D: config.d_model, plus: words(place[config.positions]) }, make("div", { class: "strips" }, ...strips));
}

function blockStep() {
  const { layer, head } = state, all = views(), block = all[layer];
  const { rows, columns } = block, T = rows.length, S = columns.length;
  const named = (n) => block.title + words("comma") + words("head", { n: n + 1 });
  const tabs = make("div", { class: "tabs", role: "group", "aria-label": words("layers") },
    ...all.map(({ title }, i) => make("button", {
      type: "button", "aria-pressed": String(i === layer), onclick: () => choose({ layer: i, cell: null }),
    }, title)));
  const small = block.weights.map((map, n) => {
    const canvas = make("canvas", { "aria-hidden": "true" }), key = `${block.key},${n}`;
    drawMatrix(canvas, map, T, S, share);
    const isOff = state.off.has(key);
    return make("div", { class: "head" + (isOff ? " off" : "") },
      make("button", { type: "button", class: "map", "aria-pressed": String(n === head), onclick: () => choose({ head: n }),
        "aria-label": words("head", { n: n + 1 }) }, canvas, make("span", {}, words("head", { n: n + 1 }))),
      state.model ? make("button", { type: "button", class: "switch", role: "switch", "aria-checked": String(!isOff),
        "aria-label": named(n), onclick: () => toggle(key) }, words(isOff ? "off" : "on")) : "");
  });
  const map = block.weights[head];
  const content = make("div", { class: "frame" }), looks = make("p", { id: "looks", "aria-live": "polite" }, " ");
  const canvas = headCanvas(block, map, named(head), looks);
  content.append(canvas, looks);
  const value = { block: block.title, head: head + 1, tokens: rows, ...(rows === columns ? {} : { source: columns }), weights: map };
  const large = figure(`attention_${block.key}_${head + 1}`, named(head),
    make("span", {}, named(head), " ", scale("share")), () => canvas, content, value);
  const F = block.hidden ? block.hidden.length / T : 0, query = block.own ? "T" : "S", key = rows === columns ? query : "S";
  const neurons = F ? matrix(`feed_forward_${block.key}`,
    words(F === config.d_ff ? "mlp" : "mlpPooled", { F: config.d_ff.toLocaleString() }), scaled(block.hidden), T, F) : "";
  return step("block", state.source ? "blockBothText" : "blockText",
    `(${query}, D) → (N, ${query}, ${key}) → (${query}, D) = (${config.num_heads}, ${T}, ${S}) → (${T}, ${config.d_model})`,
    { L: config.num_layers }, tabs, make("p", { class: "note" }, words(state.model ? "heads" : "headsRecorded"), " ",
      state.off.size ? make("button", { type: "button", id: "all-on", onclick: allOn }, words("allOn", { n: state.off.size })) : ""),
    make("div", { class: "heads" }, ...small), large, neurons);
}

// One head, large: what a pointer or the arrow keys point at is told in `looks`; at first that is
// what the chosen token looks at most.
function headCanvas({ rows, columns, own }, map, title, looks) {
  const T = rows.length, S = columns.length;
  const canvas = make("canvas", { class: "large", tabindex: "0", role: "img", "aria-describedby": "looks", "aria-label": title });
  let find = () => null;
  const point = ([t, s]) => {
    looks.textContent = words("looks", { query: `“${rows[t]}”`, key: `“${columns[s]}”`, share: percent(map[t * S + s]) });
    find = drawHead(canvas, map, rows, columns, [t, s]);
  };
  const pointTo = (cell) => point((state.cell = cell));
  canvas.addEventListener("pointermove", (event) => {
    const at = find(event.offsetX, event.offsetY);
    if (at && String(at) !== String(state.cell)) pointTo(at);
  });
  const first = () => {
    const t = own ? state.position : T - 1, row = map.subarray(t * S, (t + 1) * S);
    return [t, row.indexOf(row.reduce((a, b) => Math.max(a, b)))];
  };
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const by = steps[event.key];
    if (!by) return;
    event.preventDefault();
    const within = (i, n) => Math.min(n - 1, Math.max(0, i)), [t, s] = state.cell ?? first();
    pointTo([within(t + by[0], T), within(s + by[1], S)]);
  });
  requestAnimationFrame(() => point(state.cell ?? first()));
  return canvas;
}

function lensStep() {
  const rows = state.lens(), block = state.source ? "decoderLayer" : "layer";
  const depth = (i) => words(i ? block : "start", { n: i });
  const table = make("table", { class: "lens" }, make("tbody", {}, ...rows.map((row, i) =>
    make("tr", {}, make("th", { scope: "row" }, depth(i)), ...row.map(({ id, share: part }) =>
      make("td", { style: `background:rgba(23,78,166,${(0.75 * part).toFixed(3)})`, class: part > 0.6 ? "deep" : null },
        shown(id), make("small", {}, percent(part))))))));
  const picture = () => drawBars(rows.map((row, i) => ({ name: `${depth(i)}: ${shown(row[0].id)}`, share: row[0].share })));
  const value = rows.map((row, i) => ({ after: i, likeliest: row.map(({ id, share: part }) => ({ token: DATA.names[id], probability: part })) }));
  return step("lens", DATA.kind === "mask" ? "lensMaskText" : "lensText", `(T, D) → (V) = (${config.vocab_size.toLocaleString()})`,
    { token: quoted(state.ids[state.position]) },
    figure("lens", words("lens"), "", picture, make("div", { class: "scroll", tabindex: "0" }, table), value));
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

// The likeliest tokens or labels at the chosen token, after temperature, top-k and top-p.
function likeliest() {
  const label = DATA.kind === "label", { ids, logits, rest } = scoresAt(state.position);
  const heat = label ? 1 : state.temperature;
  const { left, chances, order } = distribution(logits, heat, state.topK, state.topP, rest(heat));
  const id = (i) => (ids ? ids[i] : i), name = (i) => (label ? config.labels[i] : shown(id(i)));
  const rows = order.slice(0, 12).map((i) => ({ id: id(i), name: name(i), share: left[i] || chances[i], cut: left[i] === 0 }));
  return { rows, drawn: (mark) => id(order.find((i) => (mark -= left[i]) <= 0) ?? order[0]) };
}

function probabilitiesStep() {
  const label = DATA.kind === "label", V = config.vocab_size, most = Math.min(50, V);
  const content = make("div", { id: "bars" });
  const masked = state.ids[state.position] === DATA.mask ? "maskText" : "unmaskedText";
  const sentence = { next: "nextText", mask: masked, label: "labelText" }[DATA.kind];
  const sliders = label ? "" : make("div", { class: "sliders" },
    slider("temperature", words("temperature"), 0, 2, 0.05, state.temperature, (x) => x.toFixed(2), (x) => (state.temperature = x)),
    slider("top-k", "top-k", 1, most, 1, Math.min(state.topK, most), (x) => (x >= most ? words("all") : String(x)),
      (x) => (state.topK = x >= most ? Infinity : x)),
    slider("top-p", "top-p", 0.05, 1, 0.05, state.topP, (x) => x.toFixed(2), (x) => (state.topP = x)));
  const value = { get tokens() { return likeliest().rows; } };
  const shape = label ? `(C) = (${config.labels.length})` : `(V) = (${V.toLocaleString()})`;
  const values = { V: V.toLocaleString(), C: config.labels?.length, token: quoted(state.ids[state.position]) };
  return step("probabilities", sentence, shape, values, label ? "" : make("p", {}, words("samplingText")), sliders,
    figure("probabilities", words("probabilities"), "", () => drawBars(likeliest().rows), content, value));
}

function refreshProbabilities() {
  const [best, ...others] = likeliest().rows;
  $("bars").replaceChildren(bars([best, ...others], 0));
  $("answer").textContent = words("answer", { name: best.name, share: percent(best.share) });
}

function choiceStep() {
  const answer = make("p", { id: "answer", "aria-live": "polite" });
  if (DATA.kind === "label") return step("labelChoice", "", "", {}, answer);
  const { ids, position } = state, mask = DATA.kind === "mask", full = !mask && position + 2 > T_MAX;
  const obstacle = mask && ids[position] !== DATA.mask ? (ids.includes(DATA.mask) ? "chooseMask" : "noMask")
    : state.source && ids[position] === DATA.end ? "ended" : state.source && full ? "full" : null;
  const button = (id, choice) => make("button", { type: "button", id, disabled: obstacle !== null, onclick: () => put(choice()) }, words(id));
  const buttons = state.model ? make("div", { class: "choices" }, button("greedy", () => likeliest().rows[0].id),
    button("sample", () => likeliest().drawn(Math.random()))) : "";
  const values = { mask: quoted(DATA.mask), token: quoted(ids[position]), limit: T_MAX };
  const told = obstacle ?? (full ? "slides" : null);
  const note = state.model && told ? make("p", { class: "note" }, words(told, values)) : "";
  const sentence = mask ? "choiceMaskText" : state.model && position < ids.length - 1 ? "choiceCutText" : "choiceText";
  return step("choice", sentence, mask ? "" : "(T) → (T + 1)", values, answer, note, buttons);
}
