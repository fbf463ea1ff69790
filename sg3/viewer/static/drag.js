// Drag editing: handles and targets on the picture, a mask painted over it, and the server's steps as they come.

import { label } from "./controls.js";
import { act, follow, startDrag } from "./tasks.js";

const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const SHAPED = { trunc: null, cutoff: null, mix_seed: null, mix_layers: null, directions: null };

export class Drag {
  constructor(store, fail) {
    this.store = store;
    this.fail = fail;
    this.points = [];  // [x, y] in pixels: handle, target, handle, target, ...
    this.task = null;
    this.mode = null;
    this.hasMask = false;
    this.before = new Map();  // state before and after drags -> points then: who goes back finds them as they were
    this.picture = byId("picture");
    store.addEventListener("change", ({ detail }) => { if (!detail.moving) this.#back(); });
    this.mask = byId("mask");
    for (const [id, mode] of [["drag_points", "points"], ["drag_mask", "mask"]]) {
      byId(id).addEventListener("click", () => this.#mode(this.mode === mode ? null : mode));
    }
    byId("drag_clear").addEventListener("click", () => this.clear());
    byId("drag_start").addEventListener("click", () => this.start().catch(fail));
    byId("drag_step").addEventListener("click", () => this.step().catch(fail));
    byId("drag_stop").addEventListener("click", () => act(this.task, "stop").catch(fail));
    byId("drag_undo").addEventListener("click", () => this.#undo().catch(fail));
    this.picture.addEventListener("pointerdown", (event) => this.#down(event));
    this.picture.addEventListener("pointermove", (event) => this.#paint(event));
    this.picture.addEventListener("pointerup", () => { this.last = null; });
    for (const id of ["drag_lr", "keep_pose"]) byId(id).addEventListener("change", () => { this.reached = null; });
    for (const [id, text] of [["brush", (v) => `${v} %`], ["drag_lr", (v) => (10 ** v).toPrecision(2)]]) {
      const show = () => label(byId(id), text(Number(byId(id).value)));
      byId(id).addEventListener("input", show);
      show();
    }
  }

  /** Whether clicks on the picture are ours. */
  isPlacing() { return this.mode !== null; }

  clear() {
    this.points = [];
    this.before.clear();
    this.task = null;
    this.hasMask = false;
    this.mask.hidden = true;
    this.#draw();
    byId("drag_text").textContent = "";
  }

  /** One step, of the drag that is there or, where something has been changed since, of a new one. */
  async step() {
    if (!this.task || this.reached !== this.#placeNow()) { await this.start(1); return; }
    this.#mode(null);
    await this.#run(() => act(this.task, "continue", 1));
  }

  #placeNow() { return JSON.stringify([this.points, this.store.get("latent")]); }

  async start(steps = null) {
    this.#mode(null);
    const even = this.points.slice(0, 2 * Math.floor(this.points.length / 2));
    const asked = {
      state: this.store.state, handles: even.filter((_, n) => n % 2 === 0), targets: even.filter((_, n) => n % 2),
      lr: 10 ** Number(byId("drag_lr").value), mask: this.hasMask ? this.#runs() : null,
      keep_pose: byId("keep_pose").checked || null, steps,
    };
    this.#remember();
    await this.#run(() => startDrag(asked));
  }

  #isRunning() { return !byId("drag_stop").disabled; }

  #remember() { this.before.set(JSON.stringify(this.store.state), [...this.points]); }

  #back() {
    const points = this.before.get(JSON.stringify(this.store.state));
    if (!points || this.#isRunning()) return;
    this.points = [...points];
    this.#draw();
  }

  async #run(begin) {
    byId("drag_start").disabled = byId("drag_step").disabled = byId("drag_undo").disabled = true;
    byId("drag_stop").disabled = false;
    try {
      await follow(begin, (status) => this.#report(status, status.running));
    } finally {
      this.store.set({});
      byId("drag_stop").disabled = true;
      this.#remember();
      this.#draw();
    }
  }

  #report(status, moving) {
    this.task = status.task;
    if (!status.handles) return;
    this.points = status.handles.flatMap((handle, n) => [handle, status.targets[n]]);
    this.iteration = status.iteration;
    const far = Math.max(...status.distances).toFixed(1);
    byId("drag_text").textContent = `${status.iteration} steps, ${far} px to go${status.ended ? ": " + status.ended : ""}`;
    if (status.latent !== this.store.get("latent")) this.store.set({ latent: status.latent, ...SHAPED }, { moving });
    this.reached = this.#placeNow();
    this.#draw();
  }

  async #undo() {
    this.#report(await act(this.task, "undo"), false);
    this.#remember();
  }

  #mode(mode) {
    this.mode = mode;
    byId("drag_points").setAttribute("aria-pressed", String(mode === "points"));
    byId("drag_mask").setAttribute("aria-pressed", String(mode === "mask"));
    this.picture.classList.toggle("placing", mode !== null);
  }

  #place(event) {
    const box = this.picture.getBoundingClientRect(), { width, height } = this.picture;
    const at = (part, size) => Math.min(Math.max(part * size - 0.5, 0), size - 1);
    return [at((event.clientX - box.left) / box.width, width), at((event.clientY - box.top) / box.height, height)];
  }

  #down(event) {
    if (event.button !== 0) return;
    if (this.mode === "points") {
      this.points.push(this.#place(event).map((c) => Math.round(c)));
      this.#draw();
    } else if (this.mode === "mask") {
      this.picture.setPointerCapture(event.pointerId);
      const { width, height } = this.picture;
      if (this.mask.width !== width || this.mask.height !== height) Object.assign(this.mask, { width, height });
      if (!this.hasMask) this.mask.getContext("2d").clearRect(0, 0, width, height);
      this.hasMask = true;
      this.reached = null;
      this.mask.hidden = false;
      this.last = this.#place(event);
      this.#paint(event);
    }
  }

  #paint(event) {
    if (this.mode !== "mask" || !this.last) return;
    const c = this.mask.getContext("2d"), place = this.#place(event);
    c.strokeStyle = c.fillStyle = "#fff";
    c.lineCap = "round";
    c.lineWidth = (Number(byId("brush").value) * this.mask.width) / 100;
    c.beginPath();
    c.moveTo(...this.last.map((v) => v + 0.5));
    c.lineTo(...place.map((v) => v + 0.51));
    c.stroke();
    this.last = place;
  }

  /** Lengths, row by row, of what may not and what may move. */
  #runs() {
    const { data } = this.mask.getContext("2d").getImageData(0, 0, this.mask.width, this.mask.height);
    const runs = [0];
    let on = false;
    for (let n = 3; n < data.length; n += 4) {
      if (data[n] > 127 !== on) { on = !on; runs.push(0); }
      runs[runs.length - 1] += 1;
    }
    return runs;
  }

  #draw() {
    const svg = byId("points"), { width, height } = this.picture, size = Math.max(width, height);
    svg.setAttribute("viewBox", `-0.5 -0.5 ${width} ${height}`);
    svg.toggleAttribute("hidden", !this.points.length);
    const make = (name, attributes) => {
      const element = document.createElementNS(SVG, name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      return element;
    };
    const parts = [];
    this.points.forEach(([x, y], n) => {
      if (n % 2) parts.push(make("line", { x1: this.points[n - 1][0], y1: this.points[n - 1][1], x2: x, y2: y }));
    });
    this.points.forEach(([x, y], n) => parts.push(make("circle", { cx: x, cy: y, r: size * 0.014, class: n % 2 ? "target" : "handle" })));
    svg.replaceChildren(...parts);
    byId("drag_start").disabled = byId("drag_step").disabled = this.#isRunning() || this.points.length < 2;
    byId("drag_undo").disabled = this.#isRunning() || !this.task || !this.iteration;
  }
}
