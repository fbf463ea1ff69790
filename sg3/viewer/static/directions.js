// Directions of w as sliders: SeFa's, principal components, or a file's. Each set keeps its amounts while others show.

import { ask } from "./api.js";
import { label } from "./controls.js";

const SHOWN = 8;
const REACH = 10;  // degrees to each side
const byId = (id) => document.getElementById(id);

export class Directions {
  constructor(store, fail) {
    this.store = store;
    this.sliders = [];
    this.counts = {};
    byId("direction_set").addEventListener("change", () => this.#build());
    byId("direction_layers").addEventListener("change", () => this.#write(false));
    byId("directions_zero").addEventListener("click", () => store.set({ directions: null }));
    byId("directions_file").addEventListener("change", ({ target }) => {
      if (target.files[0]) this.#load(target.files[0]).catch(fail);
      target.value = "";
    });
    store.addEventListener("change", () => this.#follow());
    this.#build();
  }

  async #load(file) {
    const headers = { "content-type": "application/octet-stream" };
    const { name, count } = await ask("/api/directions", { method: "POST", body: file, headers });
    this.counts[name] = count;
    byId("direction_set").append(new Option(file.name, name));
    byId("direction_set").value = name;
    this.#build();
  }

  #build() {
    const count = Math.min(this.counts[byId("direction_set").value] ?? SHOWN, 2 * SHOWN);
    this.sliders = Array.from({ length: count }, (_, n) => {
      const row = document.createElement("div"), text = document.createElement("label"), slider = document.createElement("input");
      row.className = "row";
      Object.assign(slider, { type: "range", min: -REACH, max: REACH, step: 0.1, value: 0, id: `direction_${n}` });
      text.htmlFor = slider.id;
      text.textContent = `Direction ${n}`;
      slider.addEventListener("input", () => this.#write(true));
      slider.addEventListener("change", () => this.#write(false));
      row.append(text, slider, document.createElement("output"));
      return slider;
    });
    byId("direction_sliders").replaceChildren(...this.sliders.map((slider) => slider.parentElement));
    this.#follow();
  }

  #write(moving) {
    const set = byId("direction_set").value, layers = byId("direction_layers");
    if (!layers.validity.valid) return;
    const where = layers.value ? `:${layers.value}` : "";
    const others = this.store.get("directions").filter((word) => !word.startsWith(`${set}.`));
    const mine = this.sliders.map((slider, n) => `${set}.${n}:${slider.value}${where}`)
      .filter((_, n) => Number(this.sliders[n].value) !== 0);
    this.store.set({ directions: [...others, ...mine] }, { moving });
  }

  #follow() {
    const set = byId("direction_set").value;
    const amounts = {};
    for (const word of this.store.get("directions")) {
      const [, kind, number, amount, , layers] = word.match(/^(\w+)\.(\d+):([-\d.]+)(:(.*))?$/) ?? [];
      if (kind !== set) continue;
      amounts[number] = amount;
      if (layers && document.activeElement !== byId("direction_layers")) byId("direction_layers").value = layers;
    }
    this.sliders.forEach((slider, n) => {
      slider.value = amounts[n] ?? 0;
      label(slider, Number(slider.value).toFixed(1));
    });
  }
}
