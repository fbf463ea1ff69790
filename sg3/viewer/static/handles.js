// Moving, turning and scaling the picture: sliders, and handles on the picture itself.

import { label } from "./controls.js";

const ARM = 0.3;  // of the picture's shorter side: the tip's distance from the centre at scale 1

export class Handles {
  constructor(store) {
    this.store = store;
    this.shown = this.whole = 1;  // heights, in widths: of the picture, and of the network's, which may have black bars
    this.svg = document.getElementById("handles");
    this.centre = document.getElementById("centre");
    this.tip = document.getElementById("tip");
    this.arm = document.getElementById("arm");
    for (const [index, id] of ["translate_x", "translate_y"].entries()) {
      const field = document.getElementById(id);
      field.addEventListener("input", () => this.#translate(index, Number(field.value), true));
      field.addEventListener("change", () => this.#translate(index, Number(field.value), false));
    }
    this.#drag(this.centre, (x, y) => ({ translate: [x, y / this.whole].map(rounded) }));
    this.#drag(this.tip, (x, y) => {
      const [cx, cy] = this.#middle(), [dx, dy] = [x - cx, y - cy];
      const scale = Math.min(Math.max(Math.hypot(dx, dy) / this.#length(), 0.25), 4);
      return { rotate: Math.round(-Math.atan2(dy, dx) * 1800 / Math.PI) / 10, scale: Math.round(scale * 100) / 100 };
    });
    this.centre.addEventListener("keydown", (event) => this.#key(event, (dx, dy) => {
      const [x, y] = this.store.get("translate");
      return { translate: [rounded(x + dx * 0.01), rounded(y + dy * 0.01)] };
    }));
    this.tip.addEventListener("keydown", (event) => this.#key(event, (dx, dy) => ({
      rotate: this.store.get("rotate") - dx * 2, scale: Math.min(Math.max(this.store.get("scale") - dy * 0.05, 0.25), 4),
    })));
    this.wanted = document.getElementById("show_handles");
    this.wanted.addEventListener("change", () => this.#follow());
    store.addEventListener("change", () => this.#follow());
    this.#follow();
  }

  show(on) {
    this.wanted.checked = on;
    this.#follow();
  }

  /** To pictures of this size, of images of that one: [height, width] each. */
  fit(size, whole) {
    [this.shown, this.whole] = [size, whole].map(([height, width]) => height / width);
    this.#follow();
  }

  /** Where the middle of the image is, from the middle of the picture, in widths. */
  #middle() {
    const [x, y] = this.store.get("translate");
    return [x, y * this.whole];
  }

  /** The arm at scale 1, in widths. */
  #length() { return ARM * Math.min(1, this.shown); }

  #translate(index, value, moving) {
    const both = [...this.store.get("translate")];
    both[index] = value;
    this.store.set({ translate: both }, { moving });
  }

  #drag(handle, change) {
    let active = null;
    handle.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      handle.focus();
      handle.setPointerCapture(event.pointerId);
      active = event.pointerId;
    });
    handle.addEventListener("pointermove", (event) => {
      if (event.pointerId !== active) return;
      const box = this.svg.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width - 0.5, y = (event.clientY - box.top) / box.height - 0.5;
      this.store.set(change(x, y * this.shown), { moving: true });
    });
    const end = (event) => {
      if (event.pointerId !== active) return;
      active = null;
      this.store.set({});
    };
    handle.addEventListener("pointerup", end);
    handle.addEventListener("pointercancel", end);
  }

  #key(event, change) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!(event.key in steps)) return;
    event.preventDefault();
    event.stopPropagation();
    this.store.set(change(...steps[event.key]));
  }

  #follow() {
    const isSpectrum = this.store.get("layer") && this.store.get("layer_view") === "spectrum";  // nothing is moved there
    this.svg.toggleAttribute("hidden", !this.wanted.checked || isSpectrum);
    const [x, y] = this.store.get("translate"), angle = this.store.get("rotate"), scale = this.store.get("scale");
    const turn = -angle * Math.PI / 180;
    const place = (element, names, px, py) => {  // the drawing is stretched over the picture: 1 is its width and its height
      element.setAttribute(names[0], px);
      element.setAttribute(names[1], py / this.shown);
    };
    const [cx, cy] = this.#middle(), length = this.#length() * scale;
    const tx = cx + length * Math.cos(turn), ty = cy + length * Math.sin(turn);
    place(this.centre, ["cx", "cy"], cx, cy);
    place(this.tip, ["cx", "cy"], tx, ty);
    place(this.arm, ["x1", "y1"], cx, cy);
    place(this.arm, ["x2", "y2"], tx, ty);
    this.centre.setAttribute("aria-valuenow", x);
    this.tip.setAttribute("aria-valuenow", angle);
    this.centre.setAttribute("aria-valuetext", `${x.toFixed(2)} right, ${y.toFixed(2)} down`);
    this.tip.setAttribute("aria-valuetext", `${angle.toFixed(0)} degrees, scale ${scale.toFixed(2)}`);
    for (const [id, value] of [["translate_x", x], ["translate_y", y]]) {
      const field = document.getElementById(id);
      field.value = value;
      label(field, value.toFixed(3));
    }
  }
}

const rounded = (value) => Math.round(Math.min(Math.max(value, -10), 10) * 1000) / 1000;
