// Directions of w as sliders: SeFa's, principal components, or a file's. Each set keeps its amounts while others show; one
// that is kept has a name and its layers, so that a direction can go different ways in different layers.

import { ask } from "./api.js";
import { label } from "./controls.js";

const SHOWN = 8;
const REACH = 10;  // degrees to each side
const KEPT = "sg3-directions";
const WORD = /^(\w+)\.(\d+):([-\d.]+)(?::(.*))?$/;
const byId = (id) => document.getElementById(id);
const make = (kind, attributes = {}) => Object.assign(document.createElement(kind), attributes);

export class Directions {
  constructor(store, fail) {
    this.store = store;
    this.sliders = [];
    this.counts = {};
    this.kept = [];  // { key, name }; a key is a word without its amount
    this.of = null;
    this.layers = "";
    byId("direction_set").addEventListener("change", () => this.#build());
    byId("direction_layers").addEventListener("change", () => this.#travel());
    byId("directions_zero").addEventListener("click", () => store.set({ directions: null }));
    byId("directions_keep").addEventListener("click", () => this.#keep());
    byId("directions_file").addEventListener("change", ({ target }) => {
      if (target.files[0]) this.#load(target.files[0]).catch(fail);
      target.value = "";
    });
    store.addEventListener("change", () => this.#follow());
    this.#build();
  }

  /** Those that are kept of a network; all snapshots of a run share theirs. */
  attach(network) {
    this.of = network.run ?? network.name;
    this.kept = this.#stored()[this.of] ?? [];
    this.#list();
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
    const set = byId("direction_set"), count = Math.min(this.counts[set.value] ?? SHOWN, 2 * SHOWN);
    this.sliders = Array.from({ length: count }, (_, n) => (
      this.#slider(`direction_${n}`, this.#title(n), () => this.#write(true), () => this.#write(false))));
    byId("direction_sliders").replaceChildren(...this.sliders.map((slider) => slider.parentElement));
    this.#follow();
  }

  /** A slider in a row with its name. */
  #slider(id, name, moves, rests) {
    const row = make("div", { className: "row" }), text = make("label", { htmlFor: id, textContent: name, title: name });
    const slider = make("input", { type: "range", min: -REACH, max: REACH, step: 0.1, value: 0, id });
    slider.addEventListener("input", moves);
    slider.addEventListener("change", rests);
    row.append(text, slider, make("output", { ariaHidden: "true" }));
    return slider;
  }

  #title(n) { return `${byId("direction_set").selectedOptions[0].text.replace(/ of w$|\.npz$/, "")} ${n}`; }

  #key(n) { return `${byId("direction_set").value}.${n}${this.layers ? `:${this.layers}` : ""}`; }

  #isKept(key) { return this.kept.some((one) => one.key === key); }

  /** Other layers: what is not kept goes there, what is kept stays where it is. */
  #travel() {
    if (!byId("direction_layers").validity.valid) return;
    this.sliders.forEach((slider, n) => { if (this.#isKept(this.#key(n))) slider.value = 0; });
    const moving = this.sliders.some((slider) => Number(slider.value) !== 0);
    this.layers = byId("direction_layers").value;
    if (moving) this.#write(false);
    else this.#follow();
  }

  #write(moving) {
    const set = byId("direction_set").value, mine = new Set(this.sliders.map((_, n) => this.#key(n)));
    const others = this.store.get("directions")
      .filter((word) => !word.startsWith(`${set}.`) || (this.#isKept(key(word)) && !mine.has(key(word))));
    const words = this.sliders.map((slider, n) => said(this.#key(n), slider.value)).filter(Boolean);
    this.store.set({ directions: [...others, ...words] }, { moving });
  }

  #follow() {
    const amounts = {};
    for (const word of this.store.get("directions")) amounts[key(word)] = Number(word.match(WORD)?.[3] ?? 0);
    const set = byId("direction_set").value;
    const loose = Object.keys(amounts).find((one) => one.startsWith(`${set}.`) && !this.#isKept(one));
    if (loose !== undefined && document.activeElement !== byId("direction_layers")) {
      byId("direction_layers").value = this.layers = loose.split(":")[1] ?? "";
    }
    this.sliders.forEach((slider, n) => show(slider, amounts[this.#key(n)]));
    for (const { key, slider } of this.kept) if (slider) show(slider, amounts[key]);
    byId("directions_keep").disabled = !this.sliders.some((slider, n) => Number(slider.value) && !this.#isKept(this.#key(n)));
  }

  /** Those that are not at zero get a name and a slider of their own, for these layers. */
  #keep() {
    const where = this.layers ? ` in ${this.layers}` : "";
    const more = this.sliders.map((slider, n) => ({ key: this.#key(n), name: this.#title(n) + where, amount: Number(slider.value) }))
      .filter(({ key, amount }) => amount && !this.#isKept(key)).map(({ key, name }) => ({ key, name }));
    this.#change([...this.kept, ...more]);
  }

  #change(kept) {
    this.kept = kept;
    const all = this.#stored();
    all[this.of] = kept.map(({ key, name }) => ({ key, name }));
    try { localStorage.setItem(KEPT, JSON.stringify(all)); } catch { /* full: then for this window only */ }
    this.#list();
  }

  #stored() {
    try { return JSON.parse(localStorage.getItem(KEPT)) ?? {}; } catch { return {}; }
  }

  #list() {
    byId("directions_kept").replaceChildren(...this.kept.map((one, n) => {
      const set = (moving) => {
        const others = this.store.get("directions").filter((word) => key(word) !== one.key);
        const word = said(one.key, one.slider.value);
        this.store.set({ directions: word ? [...others, word] : others }, { moving });
      };
      one.slider = this.#slider(`kept_${n}`, one.name, () => set(true), () => set(false));
      const row = one.slider.parentElement, drop = make("button", { type: "button", textContent: "×" });
      row.classList.add("animated");
      const name = make("button", { type: "button", textContent: one.name, title: `${one.key}: rename`, className: "name" });
      name.ariaLabel = `Rename ${one.name}`;
      one.slider.ariaLabel = one.name;
      row.firstChild.replaceWith(name);
      name.addEventListener("click", () => this.#rename(row, one));
      drop.ariaLabel = `Remove ${one.name}`;
      drop.addEventListener("click", () => {
        this.#change(this.kept.filter((other) => other !== one));
        this.store.set({ directions: this.store.get("directions").filter((word) => key(word) !== one.key) });
      });
      row.append(drop);
      return row;
    }));
    this.#follow();
  }

  #rename(row, one) {
    const field = make("input", { type: "text", value: one.name, maxLength: 60, ariaLabel: `New name of ${one.name}` });
    row.firstChild.replaceWith(field);
    field.select();
    let isOver = false;
    const end = (isMeant) => {
      if (isOver) return;
      isOver = true;
      if (isMeant && field.value.trim()) one.name = field.value.trim();
      this.#change(this.kept);
      byId("directions_kept").children[this.kept.indexOf(one)]?.firstChild.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") { event.preventDefault(); end(event.key === "Enter"); }
    });
    field.addEventListener("blur", () => end(true));
    field.focus();
  }
}

/** A word of the setting without its amount. */
const key = (word) => word.replace(WORD, (_, set, number, amount, layers) => `${set}.${number}${layers ? `:${layers}` : ""}`);

/** The word for an amount of a key; none for nothing. */
function said(one, amount) {
  const [direction, layers] = one.split(":");
  return Number(amount) ? `${direction}:${Number(amount)}${layers ? `:${layers}` : ""}` : null;
}

function show(slider, amount = 0) {
  slider.value = amount;
  label(slider, `${Number(slider.value).toFixed(1)}°`);
}
