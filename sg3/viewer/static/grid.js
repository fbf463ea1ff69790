// Many pictures: seeds from the present one on, latents of a file, and children of those that are ticked.

import { ask } from "./api.js";
import { label } from "./controls.js";

const COUNT = 9;
const byId = (id) => document.getElementById(id);

export class Grid {
  constructor(store, fail) {
    this.store = store;
    this.cells = [];
    this.generation = 0;
    byId("grid_seeds").addEventListener("click", () => this.seeds().catch(fail));
    byId("grid_breed").addEventListener("click", () => this.breed().catch(fail));
    byId("latents_file").addEventListener("change", ({ target }) => {
      if (target.files[0]) this.#load(target.files[0]).catch(fail);
      target.value = "";
    });
    const mutation = byId("mutation");
    mutation.addEventListener("input", () => label(mutation, mutation.value));
    label(mutation, mutation.value);
  }

  /** The next seeds. */
  seeds() {
    const first = this.store.get("seed");
    return this.#fill(Array.from({ length: COUNT }, (_, n) => ({ seed: (first + n) % 2 ** 32, x: null, y: null, latent: null })));
  }

  /** Children of the ticked ones, in place of all. */
  async breed() {
    const parents = this.cells.filter(({ box }) => box.checked);
    this.generation += 1;
    const { latents } = await ask("/api/children", {
      method: "POST", headers: { "content-type": "application/json" },
      body: JSON.stringify({
        parents: parents.map(({ changes }) => ({ ...this.#plain(), ...clean(changes) })),
        count: COUNT, strength: Number(byId("mutation").value), seed: this.generation,
      }),
    });
    await this.#fill(latents.map((latent) => ({ latent, trunc: null, mix_seed: null, mix_layers: null, directions: null })), "child");
  }

  async #load(file) {
    const headers = { "content-type": "application/octet-stream" };
    const { latents } = await ask(`/api/latents?${this.store.query()}`, { method: "POST", body: file, headers });
    await this.#fill(latents.map((latent) => ({ latent, trunc: null })), "latent");
    this.store.set({ latent: latents[0], trunc: null });
  }

  #plain() {
    const { x, y, latent, latent_b, seed_b, seed_mix, layer, compare, ...rest } = this.store.state;
    return rest;
  }

  async #fill(all, kind = "seed") {
    for (const { image } of this.cells) URL.revokeObjectURL(image.src);
    const cells = this.cells = all.map((changes, n) => this.#cell(changes, kind === "seed" ? `seed ${changes.seed}` : `${kind} ${n + 1}`));
    byId("thumbs").replaceChildren(...this.cells.map(({ figure }) => figure));
    this.#ticked();
    for (const { changes, image } of cells) {
      if (cells !== this.cells) return;  // others are asked for now
      const state = { ...this.#plain(), ...clean(changes) };
      for (const name of Object.keys(changes)) if (changes[name] === null) delete state[name];
      const blob = await ask("/api/render", {
        method: "POST", body: JSON.stringify(state), headers: { "content-type": "application/json" }, as: "blob",
      });
      image.src = URL.createObjectURL(blob);
    }
  }

  #cell(changes, name) {
    const figure = document.createElement("figure"), button = document.createElement("button");
    const image = document.createElement("img"), box = document.createElement("input");
    button.type = "button";
    button.setAttribute("aria-label", `Show ${name}`);
    button.title = name;
    image.alt = "";
    button.append(image);
    button.addEventListener("click", () => this.store.set(changes));
    box.type = "checkbox";
    box.setAttribute("aria-label", `Choose ${name} as a parent`);
    box.addEventListener("change", () => this.#ticked());
    figure.append(button, box);
    return { figure, image, box, changes };
  }

  #ticked() { byId("grid_breed").disabled = !this.cells.some(({ box }) => box.checked); }
}

const clean = (changes) => Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== null));
