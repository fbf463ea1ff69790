// Keyframes: places to walk through, here as a preview along straight lines in w, and as a video by `sg3 video`.

import { label } from "./controls.js";
import { quoted } from "./keep.js";

const byId = (id) => document.getElementById(id);

export class Keyframes {
  /** `ready` says whether the last frame is shown; `facts` what the network is. */
  constructor(store, facts, ready, copy) {
    this.store = store;
    this.facts = facts;
    this.ready = ready;
    this.keys = [];
    byId("key_add").addEventListener("click", () => {
      this.keys.push({ seed: store.get("seed"), trunc: store.get("trunc"), class: store.get("class") });
      this.#list();
    });
    byId("key_clear").addEventListener("click", () => { this.keys = []; this.#stop(); this.#list(); });
    byId("key_play").addEventListener("click", () => (this.playing ? this.#stop() : this.#play()));
    byId("key_copy").addEventListener("click", () => copy(this.command()));
    const seconds = byId("key_seconds");
    const show = () => { label(seconds, `${seconds.value} s`); this.#list(); };
    seconds.addEventListener("input", show);
    byId("key_loop").addEventListener("change", () => this.#list());
    show();
  }

  /** The video of this path. */
  command() {
    if (this.keys.length < 2 || !this.facts()) return "";
    const frames = Math.round(60 * Number(byId("key_seconds").value));
    const words = [`--network=${quoted(this.facts().name)}`, `--seeds=${this.keys.map(({ seed }) => seed).join(",")}`];
    if (this.keys[0].trunc !== 1) words.push(`--trunc=${this.keys[0].trunc}`);
    if (this.facts().classes) words.push(`--class=${this.keys.map((key) => key.class ?? 0).join(",")}`);
    words.push("--interpolation=linear", `--w-frames=${frames}`, byId("key_loop").checked ? "--loop" : "--no-loop");
    return `sg3 video ${words.join(" ")} --output=walk.mp4`;
  }

  #list() {
    byId("key_list").replaceChildren(...this.keys.map((key, n) => {
      const item = document.createElement("li"), go = document.createElement("button"), drop = document.createElement("button");
      Object.assign(go, { type: "button", textContent: `seed ${key.seed}` });
      go.addEventListener("click", () => this.store.set({ seed: key.seed, x: null, y: null, seed_b: null, seed_mix: null }));
      Object.assign(drop, { type: "button", textContent: "×", ariaLabel: `Remove keyframe ${n + 1}` });
      drop.addEventListener("click", () => { this.keys.splice(n, 1); this.#list(); });
      item.append(go, " ", drop);
      return item;
    }));
    byId("key_play").disabled = this.keys.length < 2;
    byId("key_copy").disabled = this.keys.length < 2;
    byId("key_command").textContent = this.command();
    byId("key_command").hidden = this.keys.length < 2;
  }

  #play() {
    this.playing = true;
    byId("key_play").setAttribute("aria-pressed", "true");
    const began = performance.now();
    const step = (now) => {
      if (!this.playing) return;
      const loop = byId("key_loop").checked, count = this.keys.length;
      const time = Math.max(now - began, 0) / 1000 / Number(byId("key_seconds").value);
      if (!loop && time >= count - 1) { this.#stop(); return; }
      if (this.ready()) {
        const at = time % (loop ? count : count - 1), n = Math.floor(at);
        const from = this.keys[n], to = this.keys[(n + 1) % count];
        this.store.set({
          seed: from.seed, x: null, y: null, seed_b: to.seed, seed_mix: Math.round((at - n) * 1000) / 1000, latent: null,
          class: from.class, class_b: to.class === from.class ? null : to.class, class_mix: null, trunc: from.trunc,
        }, { moving: true });
      }
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  #stop() {
    this.playing = false;
    byId("key_play").setAttribute("aria-pressed", "false");
    this.store.set({});
  }
}
