// What to take home: pictures, latents, links, and the command that makes the same picture.

import { ask } from "./api.js";

/** Wire the buttons. `say` shows a few words, `fail` an error. */
export function keeping(store, facts, say, fail) {
  const on = (id, what) => document.getElementById(id).addEventListener("click", () => what().catch(fail));
  const save = async () => {
    download(await ask(`/api/image.png?${store.query()}`, { as: "blob" }), `${stem(store)}.png`);
  };
  on("save", save);
  on("save_latent", async () => {
    download(await ask(`/api/latent.npz?${store.query()}`, { as: "blob" }), `${stem(store)}.npz`);
  });
  on("copy_link", () => copy(store.address(), say));
  on("copy_look", async () => copy(store.address((await ask("/api/session")).look), say));
  on("copy_command", () => copy(command(store, facts()), say));
  const show = () => { document.getElementById("command").textContent = command(store, facts()); };
  store.addEventListener("change", show);
  show();
  return { save: () => save().catch(fail), show, copy: (text) => copy(text, say).catch(fail) };
}

const stem = (store) => `seed${String(store.get("seed")).padStart(4, "0")}`;

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function copy(text, say) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied");
  } catch {  // not allowed without https: mark it, to be copied by hand
    const box = document.getElementById("command");
    document.getElementById("keep").open = true;
    box.textContent = text;
    getSelection().selectAllChildren(box);
    say("Press Ctrl+C to copy");
  }
}

/** The command that makes this picture; where a command cannot, a request that can. */
export function command(store, facts) {
  if (!facts) return "";
  const get = (name) => store.get(name);
  const only = ["network", "seed", "trunc", "class", "noise_mode", "translate", "rotate"];
  const mixed = get("mix_seed") !== null && get("mix_layers").length > 0;
  const rest = Object.keys(store.state).filter((name) => !only.includes(name) && !name.startsWith("mix_"));
  const words = [`--network=${quoted(facts.name)}`];
  if (get("trunc") !== 1) words.push(`--trunc=${get("trunc")}`);
  if (facts.classes) words.push(`--class=${get("class") ?? 0}`);
  if (get("noise_mode") !== "const") words.push(`--noise-mode=${get("noise_mode")}`);
  const moved = [];
  if (get("translate").some(Boolean)) moved.push(`--translate=${get("translate").join(",")}`);
  if (get("rotate")) moved.push(`--rotate=${get("rotate")}`);
  if (!rest.length && !mixed) return ["sg3 generate", ...words, `--seeds=${get("seed")}`, ...moved, "--outdir=out"].join(" ");
  if (!rest.length && !moved.length) {
    const mix = [`--rows=${get("seed")}`, `--cols=${get("mix_seed")}`, `--styles=${get("mix_layers").join(",")}`];
    return ["sg3 style-mix", ...words, ...mix, "--outdir=out"].join(" ");
  }
  const query = store.query();
  return `curl -o picture.png -H "Authorization: Bearer $TOKEN" '${location.origin}/api/image.png?${query}'`;
}

export const quoted = (text) => (/^[\w./:-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
