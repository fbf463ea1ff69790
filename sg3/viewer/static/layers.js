// The layers: a table of sizes and statistics, and one of them as a picture with its radial spectrum.

import { ask } from "./api.js";
import { chart } from "./chart.js";

const AFTER = 300;  // milliseconds of rest before statistics are asked for
const byId = (id) => document.getElementById(id);

export class Layers {
  constructor(store, fail) {
    this.store = store;
    this.fail = fail;
    this.timer = 0;
    this.names = "";
    store.addEventListener("change", ({ detail }) => this.#follow(detail.moving));
    byId("layers").addEventListener("toggle", () => this.#follow(false));
  }

  #follow(moving) {
    byId("layer_settings").hidden = !this.store.get("layer");
    clearTimeout(this.timer);
    this.asking?.abort();  // nobody waits for the numbers of what was shown before
    if (byId("layers").open && !moving) this.timer = setTimeout(() => this.refresh().catch(this.fail), AFTER);
  }

  /** Ask for the statistics, and for the curve if a layer is shown. */
  async refresh() {
    this.asking = new AbortController();
    const { signal } = this.asking;
    const { layers } = await ask(`/api/layers?${this.store.query()}`, { signal });
    this.#table(layers);
    if (this.store.get("layer")) {
      const { frequency, decibels } = await ask(`/api/spectrum?${this.store.query()}`, { signal });
      const points = frequency.map((f, n) => [f, decibels[n]]).filter(([, level]) => level !== null);
      chart(byId("radial"), points, { unit: "cycles" });
    }
  }

  #table(layers) {
    const chosen = this.store.get("layer");
    const names = layers.map(({ name }) => name);
    if (names.join() !== this.names) {
      this.names = names.join();
      byId("layer").replaceChildren(new Option("the picture", ""), ...names.map((name) => new Option(name, name)));
    }
    byId("layer").value = chosen;
    const short = (value) => (value === null ? "not finite" : String(Number(value.toPrecision(3))));
    byId("layer_table").tBodies[0].replaceChildren(...layers.map((layer) => {
      const row = document.createElement("tr");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = layer.name;
      button.title = `${layer.type}, show it`;
      button.setAttribute("aria-pressed", String(layer.name === chosen));
      button.addEventListener("click", () => this.store.set({ layer: layer.name === this.store.get("layer") ? null : layer.name }));
      const cells = [button, layer.shape.join("×"), short(layer.mean), short(layer.std), short(layer.max)];
      row.append(...cells.map((cell) => {
        const box = document.createElement("td");
        box.append(cell);
        return box;
      }));
      if (layer.name === chosen) byId("channel").max = layer.shape[0] - 1;
      return row;
    }));
  }
}
