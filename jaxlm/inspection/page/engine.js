// The forward pass in plain JavaScript, as jaxlm/models computes it, and texts into tokens.
"use strict";

const ACTIVATIONS = {
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  silu: (x) => x / (1 + Math.exp(-x)),
  relu: (x) => Math.max(x, 0),
  relu_squared: (x) => Math.max(x, 0) ** 2,
};

// A series near zero, a continued fraction further out (Abramowitz and Stegun 7.1.5, 7.1.14).
function erf(x) {
  const size = Math.abs(x);
  if (size > 6) return Math.sign(x);
  if (size > 2.5) {
    let fraction = 0;
    for (let n = 60; n > 0; n--) fraction = n / 2 / (size + fraction);
    return Math.sign(x) * (1 - Math.exp(-size * size) / Math.sqrt(Math.PI) / (size + fraction));
  }
  let term = size, total = size;
  for (let n = 1; n < 80; n++) {
    term *= (-size * size) / n;
    total += term / (2 * n + 1);
  }
  return Math.sign(x) * (2 / Math.sqrt(Math.PI)) * total;
}

// Base 85 as in RFC 1924, five characters for four bytes, but with a comma in place of "<".
const DIGITS =
  "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~";

function fromBase85(text) {
  const value = new Uint8Array(128);
  for (let i = 0; i < 85; i++) value[DIGITS.charCodeAt(i)] = i;
  const missing = (5 - (text.length % 5)) % 5;
  const padded = text + "~".repeat(missing);
  const bytes = new Uint8Array((padded.length / 5) * 4);
  for (let i = 0, j = 0; i < padded.length; i += 5, j += 4) {
    let word = 0;
    for (let k = 0; k < 5; k++) word = word * 85 + value[padded.charCodeAt(i + k)];
    bytes[j] = word >>> 24;
    bytes[j + 1] = (word >>> 16) & 255;
    bytes[j + 2] = (word >>> 8) & 255;
    bytes[j + 3] = word & 255;
  }
  return bytes.subarray(0, bytes.length - missing);
}

async function unpacked(text) {
  const stream = new Blob([fromBase85(text)]).stream();
  const whole = stream.pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(whole).arrayBuffer());
}

// Matrices are whole numbers in two planes of bytes, high and low, with a scale a row; what comes
// first is in fp32: vectors, and the scales in order.
function readWeights(bytes, tensors) {
  const plain = tensors.reduce((n, t) => n + (t.shape.length < 2 ? t.shape[0] ?? 1 : t.shape[0]), 0);
  const floats = new Float32Array(bytes.slice(0, 4 * plain).buffer);
  const cells = (bytes.length - 4 * plain) / 2;
  const high = bytes.subarray(4 * plain), low = bytes.subarray(4 * plain + cells);
  const weights = {};
  let f = 0, c = 0;
  for (const { path, shape } of tensors) {
    if (shape.length < 2) {
      const size = shape[0] ?? 1;
      weights[path] = floats.slice(f, f + size);
      f += size;
      continue;
    }
    const [rows, columns] = shape;
    const matrix = new Float32Array(rows * columns);
    for (let i = 0; i < rows; i++, f++)
      for (let j = 0; j < columns; j++, c++)
        matrix[i * columns + j] = (((high[c] << 24) >> 16) | low[c]) * floats[f];
    weights[path] = matrix;
  }
  return weights;
}

// x (T, I) times kernel (I, O), plus a bias.
function dense(x, T, kernel, bias) {
  const I = x.length / T, O = kernel.length / I, y = new Float32Array(T * O);
  for (let t = 0; t < T; t++) {
    const row = y.subarray(t * O, t * O + O);
    if (bias) row.set(bias);
    let i = 0;
    for (; i + 3 < I; i += 4) {
      const a = x[t * I + i], b = x[t * I + i + 1], c = x[t * I + i + 2], d = x[t * I + i + 3];
      const p = i * O, q = p + O, r = q + O, s = r + O;
      for (let o = 0; o < O; o++)
        row[o] += a * kernel[p + o] + b * kernel[q + o] + c * kernel[r + o] + d * kernel[s + o];
    }
    for (; i < I; i++) {
      const a = x[t * I + i], p = i * O;
      for (let o = 0; o < O; o++) row[o] += a * kernel[p + o];
    }
  }
  return y;
}

function sum(x, y) {
  const z = new Float32Array(x.length);
  for (let i = 0; i < z.length; i++) z[i] = x[i] + y[i];
  return z;
}

function softmax(logits) {
  let most = -Infinity, total = 0;
  for (const x of logits) most = Math.max(most, x);
  const chances = new Float64Array(logits.length);
  for (let i = 0; i < chances.length; i++) total += chances[i] = Math.exp(logits[i] - most);
  for (let i = 0; i < chances.length; i++) chances[i] /= total;
  return chances;
}

class Model {
  constructor(config, weights) {
    this.config = config;
    this.weights = weights;
  }

  get(path) {
    return this.weights[path];
  }

  // The vectors that a tied head multiplies, and an encoder that has none of its own.
  get table() {
    return this.get("backbone/embed/tokens") ?? this.get("backbone/decoder/embed/tokens");
  }

  linear(x, T, path) {
    return dense(x, T, this.get(path + "/kernel"), this.get(path + "/bias"));
  }

  norm(x, T, path) {
    const D = x.length / T, scale = this.get(path + "/scale"), bias = this.get(path + "/bias");
    const centred = this.config.norm === "layernorm", y = new Float32Array(x.length);
    for (let t = 0; t < T; t++) {
      let mean = 0, square = 0;
      if (centred) for (let d = 0; d < D; d++) mean += x[t * D + d] / D;
      for (let d = 0; d < D; d++) square += (x[t * D + d] - mean) ** 2 / D;
      const inverse = 1 / Math.sqrt(square + this.config.norm_eps);
      for (let d = 0; d < D; d++)
        y[t * D + d] = (x[t * D + d] - mean) * inverse * scale[d] + (bias ? bias[d] : 0);
    }
    return y;
  }

  // The vectors of tokens, of positions and of token types, and what enters the first block.
  embed(ids, types, root) {
    const { d_model: D, positions, position_offset, num_token_types, embed_norm } = this.config;
    const T = ids.length, table = this.get(root + "/embed/tokens") ?? this.table;
    const size = this.config.scale_embeddings ? Math.sqrt(D) : 1, half = Math.ceil(D / 2);
    const split = this.config.sinusoid_layout === "halves";
    const token = new Float32Array(T * D), place = new Float32Array(T * D);
    const learned = this.get(root + "/embed/positions"), kinds = this.get(root + "/embed/types");
    let x = new Float32Array(T * D);
    for (let t = 0; t < T; t++)
      for (let d = 0; d < D; d++) {
        const at = t * D + d;
        token[at] = table[ids[t] * D + d] * size;
        if (positions === "learned") place[at] = learned[(t + position_offset) * D + d];
        if (positions === "sinusoidal") {
          const plane = split ? d % half : Math.floor(d / 2);
          const angle = t * Math.pow(10000, (-2 * plane) / D);
          place[at] = (split ? d >= half : d % 2) ? Math.cos(angle) : Math.sin(angle);
        }
        x[at] = token[at] + place[at];
        if (num_token_types) x[at] += kinds[(types ? types[t] : 0) * D + d];
      }
    if (embed_norm) x = this.norm(x, T, root + "/embed/norm");
    return { token, place, x };
  }

  rotate(x, heads, T) {
    const H = this.config.head_dim, half = H / 2, frequencies = this.config.frequencies;
    for (let t = 0; t < T; t++)
      for (let n = 0; n < heads; n++)
        for (let i = 0; i < half; i++) {
          const at = (t * heads + n) * H + i, angle = t * frequencies[i];
          const left = x[at], right = x[at + half];
          x[at] = left * Math.cos(angle) - right * Math.sin(angle);
          x[at + half] = right * Math.cos(angle) + left * Math.sin(angle);
        }
  }

  unitHeads(x, scale) {
    const H = scale.length;
    for (let at = 0; at < x.length; at += H) {
      let square = 0;
      for (let i = 0; i < H; i++) square += x[at + i] ** 2 / H;
      const inverse = 1 / Math.sqrt(square + this.config.norm_eps);
      for (let i = 0; i < H; i++) x[at + i] *= inverse * scale[i];
    }
  }

  // Of x over itself, or over S states of a context. Heads in `off` give nothing.
  attention(x, T, path, label, off, causal, context = null, S = T) {
    const { num_heads: N, num_kv_heads: K, head_dim: H, positions, qk_norm } = this.config;
    const query = this.linear(x, T, path + "/query"), key = this.linear(context ?? x, S, path + "/key");
    const value = this.linear(context ?? x, S, path + "/value");
    if (qk_norm) {
      this.unitHeads(query, this.get(path + "/query_norm"));
      this.unitHeads(key, this.get(path + "/key_norm"));
    }
    if (positions === "rotary" && !context) {
      this.rotate(query, N, T);
      this.rotate(key, K, T);
    }
    const weights = [], mixed = new Float32Array(T * N * H);
    const scale = this.config.scale_attention ? 1 / Math.sqrt(H) : 1;
    for (let n = 0; n < N; n++) {
      const k = Math.floor(n / (N / K)), map = new Float32Array(T * S);
      for (let t = 0; t < T; t++) {
        const seen = causal ? t + 1 : S, scores = new Float64Array(seen);
        for (let s = 0; s < seen; s++)
          for (let h = 0; h < H; h++)
            scores[s] += query[(t * N + n) * H + h] * scale * key[(s * K + k) * H + h];
        map.set(softmax(scores), t * S);
        if (off.has(label + "," + n)) continue;
        for (let s = 0; s < seen; s++) {
          const share = map[t * S + s];
          for (let h = 0; h < H; h++)
            mixed[(t * N + n) * H + h] += share * value[(s * K + k) * H + h];
        }
      }
      weights.push(map);
    }
    return { weights, out: this.linear(mixed, T, path + "/output") };
  }

  feedForward(x, T, path) {
    const activation = ACTIVATIONS[this.config.activation], up = this.linear(x, T, path + "/up");
    const gate = this.config.gated ? this.linear(x, T, path + "/gate") : null;
    const hidden = up.map((u, i) => (gate ? activation(gate[i]) * u : activation(u)));
    return { hidden, out: this.linear(hidden, T, path + "/down") };
  }

  // Ids to final states, with what the page shows of each block. A head is known in `off` by the
  // name and number of its block, as "encoder.0,2"; those of a single trunk have no name.
  trunk(ids, root, { off, causal, name = "", count = this.config.num_layers, types = null, context = null, S }) {
    const T = ids.length, pre = this.config.norm_position === "pre", layers = [];
    const embedding = this.embed(ids, types, root);
    let x = embedding.x;
    for (let i = 0; i < count; i++) {
      const path = `${root}/layers_${i}`, block = {};
      const branch = (name, compute) => {
        const found = compute(pre ? this.norm(x, T, `${path}/${name}_norm`) : x);
        x = sum(x, found.out);
        if (!pre) x = this.norm(x, T, `${path}/${name}_norm`);
        return found;
      };
      block.weights = branch("attention", (y) =>
        this.attention(y, T, path + "/attention", name + i, off, causal)).weights;
      if (context)
        block.cross = branch("cross_attention", (y) =>
          this.attention(y, T, path + "/cross_attention", "cross." + i, off, false, context, S)).weights;
      block.hidden = branch("feed_forward", (y) =>
        this.feedForward(y, T, path + "/feed_forward")).hidden;
      block.residual = x;
      layers.push(block);
    }
    return { T, embedding, layers, final: this.final(x, T, root) };
  }

  // Everything that the page shows of a text, and of a source where there is one. A tagged head
  // answers by itself (see `answer`).
  forward(ids, off = new Set(), types = null, source = null) {
    const T = ids.length;
    if (!source) {
      const run = this.trunk(ids, "backbone", { off, types, causal: this.config.architecture === "decoder" });
      return { ids, ...run, logits: this.answer(run.final, T) };
    }
    const count = this.config.num_encoder_layers;
    const read = this.trunk(source, "backbone/encoder", { off, causal: false, name: "encoder.", count });
    const run = this.trunk(ids, "backbone/decoder",
      { off, causal: true, name: "decoder.", context: read.final, S: source.length });
    return { ids, ...run, source: read, logits: this.vocabulary(run.final, T) };
  }

  // The likeliest target, token by token, up to the end or as far as `ms` milliseconds go.
  written(source, start, end, limit, ms = 400) {
    const ids = [start], until = performance.now() + ms, V = this.config.vocab_size;
    while (ids.length < limit && performance.now() < until) {
      const { logits } = this.forward(ids, new Set(), null, source), last = logits.subarray(-V);
      const best = last.indexOf(last.reduce((a, b) => Math.max(a, b)));
      if (best === end) break;
      ids.push(best);
    }
    return ids;
  }

  final(x, T, root = this.get("backbone/decoder/embed/tokens") ? "backbone/decoder" : "backbone") {
    return this.config.final_norm ? this.norm(x, T, root + "/final_norm") : x;
  }

  // Logits (T, V) of final states, or of the text's label (1, C).
  answer(x, T) {
    const D = this.config.d_model;
    if (!this.get("classifier/kernel")) return this.vocabulary(x, T);
    const vector = new Float32Array(D);
    if (this.config.pooling === "mean") {
      for (let at = 0; at < x.length; at++) vector[at % D] += x[at] / T;
    } else {
      const place = this.config.architecture === "decoder" ? T - 1 : 0;
      vector.set(x.subarray(place * D, (place + 1) * D));
    }
    let pooled = vector;
    if (this.config.pooler) {
      const squash = this.config.pooler_activation === "tanh" ? Math.tanh : ACTIVATIONS.relu;
      pooled = this.linear(vector, 1, "pooler/dense").map(squash);
    }
    return this.linear(pooled, 1, "classifier");
  }

  vocabulary(x, T) {
    const { architecture, tie_embeddings, activation, d_model: D, vocab_size: V } = this.config;
    if (architecture === "encoder") {
      const y = this.linear(x, T, "transform").map(ACTIVATIONS[activation]);
      x = this.norm(y, T, "transform_norm");
    }
    if (architecture !== "encoder" && this.config.scale_head) x = x.map((value) => value / Math.sqrt(D));
    const bias = this.get("bias");
    if (!tie_embeddings) return dense(x, T, this.get("head"), bias);
    const table = this.table, logits = new Float32Array(T * V);
    for (let t = 0; t < T; t++)
      for (let v = 0; v < V; v++) {
        let total = bias ? bias[v] : 0;
        for (let d = 0; d < D; d++) total += x[t * D + d] * table[v * D + d];
        logits[t * V + v] = total;
      }
    return logits;
  }

  // The logits at one position as if each state of the residual stream were the last.
  lens(run, position) {
    const D = this.config.d_model;
    const states = [run.embedding.x, ...run.layers.map((block) => block.residual)];
    return states.map((state) => {
      const row = state.slice(position * D, (position + 1) * D);
      return this.vocabulary(this.final(row, 1), 1);
    });
  }
}

// What sampling leaves of the logits: probabilities, zero where top-k or top-p cuts.
function distribution(logits, temperature, topK, topP) {
  const cold = temperature < 1e-6;
  const chances = softmax(logits.map((x) => (cold ? x * 1e6 : x / temperature)));
  const order = [...chances.keys()].sort((a, b) => chances[b] - chances[a]);
  let kept = 0, total = 0;
  for (const i of order) {
    if (kept >= topK || (kept > 0 && total >= topP) || (cold && kept > 0)) break;
    total += chances[i];
    kept += 1;
  }
  const left = new Float64Array(chances.length);
  for (const i of order.slice(0, kept)) left[i] = chances[i] / total;
  return { left, order };
}

// Texts into ids, for the kinds of vocabularies that jaxlm trains. Returns null for an unknown
// character of a vocabulary without a token for it.
class Encoder {
  constructor(tokenizer) {
    Object.assign(this, tokenizer);
    this.ids = new Map(tokenizer.names.map((name, id) => [name, id]));
    if (this.merges) this.ranks = new Map(this.merges.map((pair, rank) => [pair.join(" "), rank]));
  }

  encode(text) {
    const special = Object.values(this.special ?? {}).filter((name) => this.ids.has(name));
    const escaped = special.map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const parts = escaped.length ? text.split(new RegExp(`(${escaped.join("|")})`)) : [text];
    const ids = [];
    for (const part of parts) {
      if (special.includes(part)) ids.push(this.ids.get(part));
      else ids.push(...this[this.kind](part));
    }
    if (ids.includes(undefined)) return null;
    return [...this.before, ...ids, ...this.after];
  }

  // The text of ids, for the input field.
  text(ids) {
    const inner = ids.slice(this.before.length, ids.length - this.after.length);
    const names = inner.map((id) => this.names[id] ?? "");
    if (this.kind === "char") return names.join("");
    if (this.kind === "wordpiece") {
      const spaced = names.map((name) => (name.startsWith("##") ? name.slice(2) : " " + name)).join("");
      return spaced.replace(/([\u3400-\u9fff\u3000-\u303f\uff00-\uffef]) (?=[\u3400-\u9fff\u3000-\u303f\uff00-\uffef])/gu, "$1").trim();
    }
    const bytes = new Map(this.bytes.map((letter, byte) => [letter, byte]));
    return new TextDecoder().decode(Uint8Array.from([...names.join("")], (letter) => bytes.get(letter) ?? 63));
  }

  char(text) {
    return [...text].map((letter) => this.ids.get(letter) ?? this.unknown);
  }

  wordpiece(text) {
    text = text.replace(/[\u0000\ufffd]/g, "").replace(/[\t\n\r]/g, " ");
    if (this.lower) text = text.toLowerCase().normalize("NFD").replace(/\p{Mn}/gu, "");
    if (this.cjk) text = text.replace(/[\u3400-\u9fff\uf900-\ufaff]|[\u{20000}-\u{2ffff}]/gu, " $& ");
    const words = text.match(/[\p{P}$+<=>^`|~]|[^\s\p{P}$+<=>^`|~]+/gu) ?? [];
    return words.flatMap((word) => {
      const letters = [...word], found = [];
      for (let start = 0; start < letters.length; ) {
        let end = letters.length, id;
        for (; end > start && id === undefined; end--)
          id = this.ids.get((start ? "##" : "") + letters.slice(start, end).join(""));
        if (id === undefined) return [this.unknown];
        found.push(id);
        start = end + 1;
      }
      return found;
    });
  }

  bpe(text) {
    const words = text.match(
      /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu) ?? [];
    return words.flatMap((word) => {
      let pieces = [...new TextEncoder().encode(word)].map((byte) => this.bytes[byte]);
      while (pieces.length > 1) {
        let best = Infinity, at = -1;
        for (let i = 0; i + 1 < pieces.length; i++) {
          const rank = this.ranks.get(pieces[i] + " " + pieces[i + 1]) ?? Infinity;
          if (rank < best) [best, at] = [rank, i];
        }
        if (at < 0) break;
        pieces.splice(at, 2, pieces[at] + pieces[at + 1]);
      }
      return pieces.map((piece) => this.ids.get(piece));
    });
  }
}

if (typeof module !== "undefined")
  module.exports = { Model, Encoder, distribution, softmax, readWeights, unpacked, erf };
