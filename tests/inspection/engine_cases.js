// Reads cases from standard input, computes each as the page does, and prints the results.
"use strict";

const [page] = process.argv.slice(2);
const { Model } = require(page + "/engine.js");
const { Encoder, distribution } = require(page + "/tokens.js");
const { readWeights, unpacked } = require(page + "/weights.js");

async function answers({ config, tensors, weights, ids, source, off, position, texts, tokenizer, draw }) {
  if (texts) {
    const encoder = new Encoder(tokenizer);
    return texts.map((text) => [encoder.encode(text), encoder.text(encoder.encode(text) ?? [])]);
  }
  if (draw) return [...distribution(Float32Array.from(draw.logits), ...draw.options).left];
  const model = new Model(config, readWeights(await unpacked(weights), tensors));
  const start = performance.now();
  const run = model.forward(ids, new Set(off), null, source);
  const ms = performance.now() - start;
  const lens = position === undefined ? [] : model.lens(run, position).map((row) => [...row]);
  const maps = run.layers.map((block) => block.weights.map((map) => [...map]));
  const cross = source ? run.layers.map((block) => block.cross.map((map) => [...map])) : [];
  const read = source ? run.source.layers.map((block) => block.weights.map((map) => [...map])) : [];
  return { cross, read, logits: [...run.logits], lens, maps, ms };
}

let input = "";
process.stdin.on("data", (part) => (input += part));
process.stdin.on("end", async () => {
  const found = [];
  for (const one of JSON.parse(input)) found.push(await answers(one));
  console.log(JSON.stringify(found));
});
