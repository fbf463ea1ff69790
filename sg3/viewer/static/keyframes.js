// Keyframes: pictures to go through, each with all that its latent depends on. Here as a preview along straight lines in w,
// and as a video by `sg3 video`: of seeds, or of a file of latents where seeds do not say it all.

import { ask } from "./api.js";
import { label } from "./controls.js";
import { download, quoted } from "./keep.js";

const byId = (id) => document.getElementById(id);
const FILE = "keyframes.npz";
const THUMB = 48;
// What a latent depends on; the rest of a state is how it is shown.
const SHAPE = ["seed", "x", "y", "seed_b", "seed_mix", "class", "class_b", "class_mix", "trunc", "cutoff", "mix_seed",
  "mix_layers", "latent", "latent_b", "directions"];
const NOTHING = Object.fromEntries(SHAPE.map((name) => [name, null]));
const PLAIN = new Set(["seed", "class", "trunc"]);  // what `sg3 video --seeds` can say

export class Keyframes {
  /** `ready` says whether the last frame is shown; `facts` what the network is. */
  constructor(store, facts, ready, copy, fail) {
    this.store = store;
    this.facts = facts;
    this.ready = ready;
    this.keys = [];  // { state, thumb }
    this.of = null;
    byId("key_add").addEventListener("click", () => this.#add());
    byId("key_clear").addEventListener("click", () => { this.#stop(); this.#change([]); });
    byId("key_play").addEventListener("click", () => (this.playing ? this.#stop() : this.#play().catch(fail)));
    byId("key_copy").addEventListener("click", () => this.#copy(copy).catch(fail));
    const seconds = byId("key_seconds");
    const show = () => { label(seconds, `${seconds.value} s`); this.#list(); };
    seconds.addEventListener("input", show);
    byId("key_loop").addEventListener("change", () => this.#list());
    show();
  }

  /** Those of a network, as they were when this window was last at it. All snapshots of a run share theirs. */
  attach(network) {
    const of = network.run ?? network.name;
    if (of === this.of) { this.#list(); return; }
    this.#stop();
    this.of = of;
    try { this.keys = JSON.parse(sessionStorage.getItem(`sg3-keyframes ${of}`)) ?? []; } catch { this.keys = []; }
    this.#list();
  }

  /** The video of this path. */
  command() {
    if (this.keys.length < 2 || !this.facts()?.name) return "";
    const states = this.keys.map(({ state }) => state), [first] = states;
    const words = [`--network=${quoted(this.facts().name)}`];
    if (this.#isPlain()) {
      words.push(`--seeds=${states.map(({ seed = 0 }) => seed).join(",")}`);
      if ((first.trunc ?? 1) !== 1) words.push(`--trunc=${first.trunc}`);
      if (this.facts().classes) words.push(`--class=${states.map((state) => state.class ?? 0).join(",")}`);
    } else words.push(`--latents=${FILE}`);
    if (this.store.get("noise_mode") !== "const") words.push(`--noise-mode=${this.store.get("noise_mode")}`);
    const frames = Math.round(60 * Number(byId("key_seconds").value));
    words.push("--interpolation=linear", `--w-frames=${frames}`, byId("key_loop").checked ? "--loop" : "--no-loop");
    return `sg3 video ${words.join(" ")} --output=walk.mp4`;
  }

  #isPlain() {
    const states = this.keys.map(({ state }) => state);
    return states.every((state) => Object.keys(state).every((name) => PLAIN.has(name)) && state.trunc === states[0].trunc);
  }

  #add() {
    const state = Object.fromEntries(SHAPE.filter((name) => name in this.store.state).map((n) => [n, this.store.state[n]]));
    this.#change([...this.keys, { state, thumb: thumbnail() }]);
  }

  #change(keys) {
    this.keys = keys;
    try { sessionStorage.setItem(`sg3-keyframes ${this.of}`, JSON.stringify(keys)); } catch { /* full: then not */ }
    this.#list();
  }

  /** Have the server keep all of their latents, of the network that is shown; their names. */
  async #latents() {
    const network = this.store.get("network");
    const states = this.keys.map(({ state }) => ({ ...state, network }));
    const headers = { "content-type": "application/json" };
    return (await ask("/api/keep", { method: "POST", headers, body: JSON.stringify({ states }) })).latents;
  }

  async #copy(copy) {
    const text = this.command();
    if (!this.#isPlain()) {
      const names = (await this.#latents()).join(",");
      download(await ask(`/api/latents.npz?latents=${names}`, { as: "blob" }), FILE);
    }
    copy(text);
  }

  #list() {
    byId("key_list").replaceChildren(...this.keys.map(({ state, thumb }, n) => {
      const item = document.createElement("li"), go = button(named(state)), image = document.createElement("img");
      image.src = thumb;
      image.alt = "";
      go.prepend(image);
      go.addEventListener("click", () => this.store.set({ ...NOTHING, ...state }));
      const up = button("↑", `Keyframe ${n + 1} one place earlier`), drop = button("×", `Remove keyframe ${n + 1}`);
      up.disabled = n === 0;
      up.addEventListener("click", () => {
        const keys = [...this.keys];
        [keys[n - 1], keys[n]] = [keys[n], keys[n - 1]];
        this.#change(keys);
      });
      drop.addEventListener("click", () => this.#change(this.keys.filter((_, other) => other !== n)));
      item.append(go, up, drop);
      return item;
    }));
    const few = this.keys.length < 2;
    byId("key_play").disabled = byId("key_copy").disabled = few;
    byId("key_command").textContent = this.command();
    byId("key_command").hidden = few;
    byId("key_hint").hidden = few || this.#isPlain();
  }

  async #play() {
    this.playing = true;
    byId("key_play").setAttribute("aria-pressed", "true");
    const states = this.keys.map(({ state }) => state), count = states.length;
    let latents = null;
    try { if (!this.#isPlain()) latents = await this.#latents(); } catch (error) { this.#stop(); throw error; }
    const began = performance.now();
    const step = (now) => {
      if (!this.playing) return;
      const loop = byId("key_loop").checked;
      const time = Math.max(now - began, 0) / 1000 / Number(byId("key_seconds").value);
      const isOver = !loop && time >= count - 1;
      if (this.ready() || isOver) {
        const at = isOver ? count - 1 : time % (loop ? count : count - 1), n = Math.min(Math.floor(at), count - (loop ? 1 : 2));
        const next = (n + 1) % count, seed_mix = Math.round((at - n) * 1000) / 1000;
        const from = states[n], to = states[next];
        const class_b = to.class === from.class ? null : to.class;
        const path = latents ? { class: from.class, latent: latents[n], latent_b: latents[next] }
          : { ...from, seed: from.seed ?? 0, seed_b: to.seed ?? 0, class_b };
        this.store.set({ ...NOTHING, ...path, seed_mix }, { moving: true });
      }
      if (isOver) this.#stop();
      else requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  #stop() {
    if (!this.playing) return;
    this.playing = false;
    byId("key_play").setAttribute("aria-pressed", "false");
    this.store.set({});
  }
}

/** The picture as it is shown, small. */
function thumbnail() {
  const small = document.createElement("canvas");
  const { width, height } = byId("picture"), scale = THUMB / Math.max(width, height);
  small.width = Math.round(width * scale);
  small.height = Math.round(height * scale);
  small.getContext("2d").drawImage(byId("picture"), 0, 0, small.width, small.height);
  return small.toDataURL();
}

/** What a keyframe is called. */
function named({ seed = 0, x = 0, y = 0, latent, ...more }) {
  const also = Object.keys(more).some((name) => !PLAIN.has(name)) ? " +" : "";
  if (latent) return `latent ${latent.slice(0, 6)}${also}`;
  return `seed ${seed}${x || y ? ` at ${x.toFixed(2)}, ${y.toFixed(2)}` : ""}${also}`;
}

function button(text, name = null) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  if (name) made.ariaLabel = name;
  return made;
}
