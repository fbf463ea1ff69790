// A network exported by `sg3 export`, run by onnxruntime-web. The same seed gives the same picture as `sg3 generate`.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { latent } from "./random.js";

ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need headers of the server (COOP, COEP)

const at = (id) => document.getElementById(id);
const canvas = at("picture");
let session = null;
let shift = [0, 0]; // of the picture, in parts of its size
let wanted = false; // whether a newer picture than the one being made is asked for
let busy = false;

function say(text) {
  at("status").textContent = text;
}

async function open(source, name) {
  say(`Loading ${name} ...`);
  session = await ort.InferenceSession.create(source, { executionProviders: ["wasm"] });
  for (const row of document.querySelectorAll("[data-input]")) row.hidden = !session.inputNames.includes(row.dataset.input);
  await draw();
}

// What the network's inputs are at the moment.
function inputs() {
  const width = Object.fromEntries(session.inputMetadata.map((input) => [input.name, input.shape.at(-1)]));
  const tensors = { z: new ort.Tensor("float32", latent(Number(at("seed").value), width.z), [1, width.z]) };
  if ("c" in width) {
    const label = new Float32Array(width.c);
    label[Math.min(Number(at("class").value), width.c - 1)] = 1;
    tensors.c = new ort.Tensor("float32", label, [1, width.c]);
  }
  if ("truncation" in width || session.inputNames.includes("truncation"))
    tensors.truncation = new ort.Tensor("float32", [Number(at("truncation").value)], []);
  if (session.inputNames.includes("transform")) {
    // The network transforms the plane that it samples: the inverse of turning the picture and moving it.
    const a = (Number(at("angle").value) * Math.PI) / 180;
    const [c, s] = [Math.cos(a), Math.sin(a)];
    const [x, y] = shift;
    tensors.transform = new ort.Tensor("float32", [c, -s, s * y - c * x, s, c, -s * x - c * y, 0, 0, 1], [3, 3]);
  }
  return tensors;
}

// Draw the newest settings; those that change meanwhile are drawn next.
async function draw() {
  wanted = true;
  if (busy || session === null) return;
  busy = true;
  try {
    while (wanted) {
      wanted = false;
      const began = performance.now();
      const { image } = await session.run(inputs());
      show(image);
      say(`Seed ${at("seed").value}: ${Math.round(performance.now() - began)} ms`);
      canvas.dataset.drawn = String(Number(canvas.dataset.drawn ?? 0) + 1);
    }
  } finally {
    busy = false;
  }
}

// image [1, C, H, W], -1..1 -> the canvas; grey is shown as grey, alpha (the last of 2 or 4) over what is behind.
function show(image) {
  const [, channels, height, width] = image.dims;
  const values = image.data;
  const plane = height * width;
  const pixels = new ImageData(width, height);
  const hasAlpha = channels === 2 || channels === 4;
  for (let i = 0; i < plane; i++) {
    const alpha = hasAlpha ? Math.min(Math.max((values[(channels - 1) * plane + i] + 1) / 2, 0), 1) : 1;
    for (let k = 0; k < 3; k++) {
      const value = values[(channels < 3 ? 0 : k) * plane + i];
      const straight = alpha > 0 ? (value + 1) / alpha - 1 : -1; // networks with alpha premultiply
      pixels.data[4 * i + k] = Math.floor(Math.min(Math.max(straight * 127.5 + 128, 0), 255));
    }
    pixels.data[4 * i + 3] = Math.round(255 * alpha);
  }
  [canvas.width, canvas.height] = [width, height];
  canvas.style.aspectRatio = `${width} / ${height}`;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function failed(error) {
  say(`This does not work: ${error.message ?? error}`);
}

at("seed").addEventListener("input", () => draw().catch(failed));
at("class").addEventListener("input", () => draw().catch(failed));
for (const [id, unit] of [["truncation", ""], ["angle", "°"]]) {
  at(id).addEventListener("input", () => {
    document.querySelector(`output[for=${id}]`).textContent = at(id).value + unit;
    draw().catch(failed);
  });
}
at("next").addEventListener("click", () => {
  at("seed").value = Number(at("seed").value) + 1;
  draw().catch(failed);
});
at("file").addEventListener("change", async () => {
  const [file] = at("file").files;
  if (file) await open(new Uint8Array(await file.arrayBuffer()), file.name).catch(failed);
});
canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
canvas.addEventListener("pointermove", (event) => {
  if (event.buttons === 0 || !session?.inputNames.includes("transform")) return;
  shift = [shift[0] + event.movementX / canvas.clientWidth, shift[1] + event.movementY / canvas.clientHeight];
  draw().catch(failed);
});

const network = new URLSearchParams(location.search).get("network") ?? "network.onnx";
fetch(network)
  .then((answer) => (answer.ok ? answer.arrayBuffer() : null))
  .then((content) => (content ? open(new Uint8Array(content), network) : say(`There is no ${network}; choose a file.`)))
  .catch(failed);
