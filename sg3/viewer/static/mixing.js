// Which layers take their style from a second seed.

export class Mixing {
  constructor(store) {
    this.store = store;
    this.boxes = [];
    store.addEventListener("change", () => this.#show());
  }

  /** Make a box for each layer. */
  layers(names) {
    const checks = document.getElementById("mix_layers");
    this.boxes = names.map((name, index) => {
      const label = document.createElement("label");
      const box = document.createElement("input");
      box.type = "checkbox";
      box.addEventListener("change", () => this.#choose((n) => (n === index ? box.checked : this.boxes[n].checked)));
      label.append(box, ` ${index} ${name}`);
      label.title = name;
      return box;
    });
    checks.replaceChildren(...this.boxes.map((box) => box.parentElement));
    const third = Math.ceil(names.length / 3);
    const groups = {
      coarse: (n) => n < third, middle: (n) => n >= third && n < 2 * third, fine: (n) => n >= 2 * third,
      all: () => true, none: () => false,
    };
    document.getElementById("groups").replaceChildren(...Object.entries(groups).map(([name, isIn]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => this.#choose(isIn));
      return button;
    }));
    this.#show();
  }

  #choose(isIn) {
    const layers = this.boxes.map((_, n) => n).filter(isIn);
    const seed = this.store.get("mix_seed") ?? (layers.length ? 1000 : null);
    this.store.set({ mix_layers: layers, mix_seed: seed });
  }

  #show() {
    const chosen = new Set(this.store.get("mix_layers"));
    this.boxes.forEach((box, n) => { box.checked = chosen.has(n); });
  }
}
