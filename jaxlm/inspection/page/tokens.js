// Texts into tokens, and what sampling leaves of their probabilities.
"use strict";

// What sampling leaves of the logits, zero where top-k or top-p cuts; the probabilities before that
// cut; and the order.
// `rest` is the logarithm of what the tokens beside these weigh together at this temperature.
function distribution(logits, temperature, topK, topP, rest = -Infinity) {
  const cold = temperature < 1e-6, scores = new Float64Array(logits.length + 1);
  logits.forEach((x, i) => (scores[i] = cold ? x * 1e6 : x / temperature));
  scores[logits.length] = cold ? -Infinity : rest;
  const chances = softmax(scores), beside = chances[logits.length];
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]);
  let kept = 0, total = 0;
  for (const i of order) {
    if (kept >= topK || (kept > 0 && total >= topP) || (cold && kept > 0)) break;
    total += chances[i];
    kept += 1;
  }
  if (kept === order.length) total += beside;
  const left = new Float64Array(logits.length);
  for (const i of order.slice(0, kept)) left[i] = chances[i] / total;
  return { left, chances, order };
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
    const content = Uint8Array.from([...names.join("")], (letter) => bytes.get(letter) ?? 63);
    return new TextDecoder().decode(content, { stream: true }); // without the beginning of a character at the end
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

if (typeof module !== "undefined") {
  globalThis.softmax = require("./engine.js").softmax;
  module.exports = { Encoder, distribution };
}
