// The weights as they travel: bytes in text, whole numbers with scales.
"use strict";

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

if (typeof module !== "undefined") module.exports = { readWeights, unpacked };
