// Classifies a dropped image with network.onnx, all in the browser: nothing is uploaded.
import * as ort from "./ort.wasm.min.mjs";

const $ = (id) => document.getElementById(id);
const status = (text) => { $("status").textContent = text; };

// One thread needs no special headers of the server.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;

// What of `length` source pixels each of `size` target pixels covers, as [first, weights]: areas
// where the image shrinks, neighbours of the centre where it grows.
function coverage(length, size) {
  const scale = length / size, found = [];
  for (let i = 0; i < size; i++) {
    if (scale > 1) {
      const start = i * scale, end = Math.min((i + 1) * scale, length), first = Math.floor(start);
      const weights = [];
      for (let j = first; j < end; j++) {
        weights.push((Math.min(j + 1, end) - Math.max(j, start)) / (end - start));
      }
      found.push([first, weights]);
    } else {
      const centre = Math.min(Math.max((i + 0.5) * scale - 0.5, 0), length - 1);
      const first = Math.min(Math.floor(centre), Math.max(length - 2, 0));
      found.push(length > 1 ? [first, [1 - (centre - first), centre - first]] : [0, [1]]);
    }
  }
  return found;
}

// The central square with `share` of the shorter side, as size x size RGB bytes.
function centralSquare(bitmap, size, share) {
  const { width, height } = bitmap;
  const side = Math.max(1, Math.round(Math.min(width, height) * share));
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const left = Math.floor((width - side) / 2), top = Math.floor((height - side) / 2);
  context.drawImage(bitmap, -left, -top);
  const pixels = context.getImageData(0, 0, side, side).data, cover = coverage(side, size);
  const bytes = new Uint8Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const sum = [0, 0, 0];
      cover[y][1].forEach((down, j) => cover[x][1].forEach((right, i) => {
        const at = 4 * ((cover[y][0] + j) * side + cover[x][0] + i);
        for (let c = 0; c < 3; c++) sum[c] += down * right * pixels[at + c];
      }));
      for (let c = 0; c < 3; c++) bytes[3 * (size * y + x) + c] = Math.round(sum[c]);
    }
  }
  return bytes;
}

function show(bytes, size) {
  const canvas = $("seen"), image = new ImageData(size, size);
  for (let p = 0; p < size * size; p++) {
    image.data.set([bytes[3 * p], bytes[3 * p + 1], bytes[3 * p + 2], 255], 4 * p);
  }
  canvas.width = canvas.height = size;
  canvas.hidden = false;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function showClasses(logits, names) {
  const largest = Math.max(...logits);
  const exps = Array.from(logits, (value) => Math.exp(value - largest));
  const total = exps.reduce((a, b) => a + b);
  const best = exps.map((value, index) => [value / total, index]).sort((a, b) => b[0] - a[0]);
  $("results").replaceChildren(...best.slice(0, 5).map(([probability, index]) => {
    const item = document.createElement("li"), name = document.createElement("span");
    const track = document.createElement("div"), bar = document.createElement("i");
    const percent = document.createElement("b");
    item.dataset.class = index;
    name.textContent = name.title = names?.[index] ?? `class ${index}`;
    bar.style.width = `${100 * probability}%`;
    percent.textContent = `${(100 * probability).toFixed(2)}%`;
    track.append(bar);
    item.append(name, track, percent);
    return item;
  }));
}

const told = await (await fetch("network.json")).json();
const { image_size: size, eval_crop: share } = told.preprocessing;
$("about").textContent = `${told.model}, ${told.num_classes.toLocaleString()} classes, `
  + `${size} × ${size} pixels. Everything is computed on this device.`;

async function classify(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "none", colorSpaceConversion: "none" });
  } catch {
    status("This is no image that the browser can read.");
    return;
  }
  const bytes = centralSquare(bitmap, size, share);
  show(bytes, size);
  const start = performance.now();
  const { logits } = await session.run({ images: new ort.Tensor("uint8", bytes, [1, size, size, 3]) });
  const milliseconds = performance.now() - start;
  showClasses(logits.data, told.classes);
  status(`${milliseconds.toFixed(1)} ms`);
  document.body.dataset.done = "yes";
}

let session;
try {
  session = await ort.InferenceSession.create("network.onnx", { executionProviders: ["wasm"] });
  status("Ready.");
} catch (error) {
  status(`The network cannot be loaded: ${error.message}`);
  throw error;
}

$("file").addEventListener("change", (event) => classify(event.target.files[0]));
$("drop").addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
});
// An image of the same server may be named in the address: index.html?image=cat.jpg
const named = new URLSearchParams(location.search).get("image");
if (named) await classify(await (await fetch(named)).blob());
