// Pictures on canvas, and their way out as PNG and JSON.
"use strict";

const HUES = ["#e8f0fe", "#e6f4ea", "#fef7e0", "#fce8e6", "#f3e8fd"]; // of tokens, as in style.css

// From -1 (red) over 0 (paper) to 1 (blue).
function signed(value) {
  const size = Math.min(1, Math.abs(value)) ** 0.8;
  const [r, g, b] = value < 0 ? [178, 34, 52] : [23, 78, 166];
  return [255 - (255 - r) * size, 255 - (255 - g) * size, 255 - (255 - b) * size];
}

// From 0 (paper) to 1 (dark blue): steps near zero are as easy to see as those near one.
function share(value) {
  const size = Math.sqrt(Math.min(1, Math.max(0, value)));
  return [255 - 243 * size, 255 - 205 * size, 255 - 135 * size];
}

// A matrix as an image, a pixel a cell; CSS makes it large.
function drawMatrix(canvas, values, rows, columns, colour) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
  for (let i = 0; i < rows * columns; i++) {
    const [r, g, b] = colour(values[i]);
    image.data.set([r, g, b, 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
}

function scaled(values) {
  const sizes = Float32Array.from(values, Math.abs).sort();
  const most = sizes[Math.floor(0.995 * (sizes.length - 1))] || 1;
  return Float32Array.from(values, (x) => x / most);
}

// One head: the tokens that look down the side, those looked at along the top; `cell` is marked.
// Returns what a pointer points at.
function drawHead(canvas, map, rows, columns, cell) {
  const T = rows.length, S = columns.length, names = [...rows, ...columns], wide = Math.max(220, Math.min(560, canvas.parentElement.clientWidth));
  const longest = Math.max(...names.map((name) => [...name].length));
  const side = Math.min(90, 20 + 8 * longest), size = Math.min(64, Math.max(3, (wide - side) / Math.max(T, S)));
  const ratio = window.devicePixelRatio || 1, edge = side + size * S, foot = side + size * T;
  canvas.width = edge * ratio;
  canvas.height = foot * ratio;
  canvas.style.width = edge + "px";
  canvas.style.height = foot + "px";
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.fillStyle = "#fff";
  context.fillRect(0, 0, edge, foot);
  for (let t = 0; t < T; t++)
    for (let s = 0; s < S; s++) {
      const [r, g, b] = share(map[t * S + s]);
      context.fillStyle = `rgb(${r},${g},${b})`;
      context.fillRect(side + s * size, side + t * size, size - (size > 8), size - (size > 8));
    }
  const every = Math.ceil(11 / size);
  context.fillStyle = "#333";
  context.font = `${Math.min(13, Math.max(9, size - 2))}px system-ui, sans-serif`;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (let t = 0; t < T; t += every)
    context.fillText(rows[t], side - 5, side + (t + 0.5) * size, side - 8);
  for (let s = 0; s < S; s += every) {
    context.save();
    context.textBaseline = "middle";
    context.translate(side + (s + 0.5) * size, side - 5);
    const upright = [...columns[s]].length === 1;
    context.textAlign = upright ? "center" : "left";
    if (upright) context.textBaseline = "bottom";
    else context.rotate(-Math.PI / 2);
    context.fillText(columns[s], 0, 0, side - 8);
    context.restore();
  }
  if (cell) {
    context.strokeStyle = "#d9480f";
    context.lineWidth = 2;
    context.strokeRect(side + cell[1] * size, side + cell[0] * size, size, size);
  }
  return (x, y) => {
    const at = [Math.floor((y - side) / size), Math.floor((x - side) / size)];
    return at[0] >= 0 && at[0] < T && at[1] >= 0 && at[1] < S ? at : null;
  };
}

// Tokens in coloured boxes, each with its number, as a picture of the page's first step.
function drawTokens(tokens) {
  const canvas = document.createElement("canvas"), context = canvas.getContext("2d"), gap = 8, high = 52, wide = 900;
  const fonts = ["600 18px system-ui, sans-serif", "12px system-ui, sans-serif"];
  const width = (texts) => Math.max(...texts.map((text, i) => ((context.font = fonts[i]), context.measureText(text).width)));
  let x = gap, y = gap;
  const boxes = tokens.map((texts) => {
    const w = Math.max(42, width(texts) + 16);
    if (x + w + gap > wide) [x, y] = [gap, y + high + gap];
    const box = { texts, x, y, w };
    x += w + gap;
    return box;
  });
  canvas.width = wide;
  canvas.height = y + high + gap;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, wide, canvas.height);
  context.textAlign = "center";
  context.textBaseline = "middle";
  boxes.forEach(({ texts, x, y, w }, i) => {
    context.fillStyle = HUES[i % HUES.length];
    context.fillRect(x, y, w, high);
    texts.forEach((text, line) => {
      context.fillStyle = line ? "#5a6472" : "#1d2430";
      context.font = fonts[line];
      context.fillText(text, x + w / 2, y + (line ? 39 : 19));
    });
  });
  return canvas;
}

// Rows of names and shares as a picture, for the figures that the page shows as a table.
function drawBars(rows) {
  const canvas = document.createElement("canvas"), line = 26;
  canvas.width = 720;
  canvas.height = rows.length * line + 20;
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.font = "15px system-ui, sans-serif";
  context.textBaseline = "middle";
  rows.forEach(({ name, share: part }, i) => {
    const y = 10 + (i + 0.5) * line;
    context.fillStyle = "#174ea6";
    context.fillRect(240, y - 8, 380 * part, 16);
    context.fillStyle = "#222";
    context.textAlign = "right";
    context.fillText(name, 230, y, 220);
    context.textAlign = "left";
    context.fillText(percent(part), 250 + 380 * part, y);
  });
  return canvas;
}

function percent(part) {
  if (part > 0.9995) return "100%";
  return part < 0.0005 ? (100 * part).toPrecision(2) + "%" : (100 * part).toFixed(1) + "%";
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// Small pictures are made large enough to look at.
function saveCanvas(canvas, name) {
  const factor = Math.max(1, Math.ceil(480 / Math.max(canvas.width, canvas.height)));
  const large = document.createElement("canvas");
  large.width = canvas.width * factor;
  large.height = canvas.height * factor;
  const context = large.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(canvas, 0, 0, large.width, large.height);
  large.toBlob((blob) => save(blob, name + ".png"));
}

function saveJson(value, name) {
  const plain = JSON.stringify(value, (_, x) => (ArrayBuffer.isView(x) ? [...x] : x));
  save(new Blob([plain], { type: "application/json" }), name + ".json");
}
