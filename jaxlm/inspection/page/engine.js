// The forward pass in plain JavaScript, as jaxlm/models computes it.
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

if (typeof module !== "undefined") module.exports = { Model, softmax };
