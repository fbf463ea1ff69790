// A run, while it trains or afterwards: its time line, curves, real images; the newest snapshot is followed if asked for.

import { ask } from "./api.js";
import { chart } from "./chart.js";
import { label } from "./controls.js";

const EVERY = 5000;
const byId = (id) => document.getElementById(id);

export class Runs {
  /** `again` shows the present state anew. */
  constructor(store, fail, again) {
    this.store = store;
    this.fail = fail;
    this.again = again;
    this.name = null;
    this.known = null;
    this.beside = null;
    this.timer = 0;
    byId("timeline").addEventListener("input", () => this.#travel(true));
    byId("timeline").addEventListener("change", () => this.#travel(false));
    byId("follow").addEventListener("change", ({ target }) => {
      store.set({ network: target.checked ? this.name : this.known.snapshots.at(-1)?.name });
    });
    byId("curve").addEventListener("change", () => this.#draw());
    for (const which of ["reals", "fakes"]) {
      byId(`show_${which}`).addEventListener("click", () => this.#show(this.beside === which ? null : which).catch(fail));
    }
  }

  /** The network's run, or null. */
  attach(name) {
    byId("run").hidden = !name;
    if (name === this.name) { this.#place(); return; }
    this.name = name;
    this.known = null;
    clearTimeout(this.timer);
    this.#show(null);
    if (name) this.#refresh();
  }

  async #refresh() {
    const name = this.name;
    try {
      const run = await ask(`/api/run?run=${encodeURIComponent(name)}`);
      if (name !== this.name) return;
      const isNew = this.known && run.snapshots.length > this.known.snapshots.length;
      this.known = run;
      this.#place();
      if (isNew && this.store.get("network") === name) this.again();
      if (!run.ended) this.timer = setTimeout(() => this.#refresh(), EVERY);
    } catch (error) {
      this.fail(error);
      this.timer = setTimeout(() => this.#refresh(), 2 * EVERY);
    }
  }

  #place() {
    const run = this.known;
    if (!run) return;
    const names = run.snapshots.map(({ name }) => name);
    const chosen = this.store.get("network");
    const index = names.indexOf(chosen) < 0 ? names.length - 1 : names.indexOf(chosen);
    byId("follow").checked = chosen === this.name || (chosen === "" && !names.includes(chosen));
    const timeline = byId("timeline");
    timeline.max = names.length - 1;
    timeline.value = index;
    if (index >= 0) label(timeline, `${run.snapshots[index].kimg} k`);
    const at = run.kimg === null ? "" : `, ${run.kimg.toFixed(1)} thousand images`;
    byId("run_text").textContent = `${names.length} snapshots${at}, ${run.ended ? "ended" : "in training"}`;
    const all = { ...run.metrics, ...run.curves };
    const select = byId("curve"), before = select.value;
    if (select.options.length !== Object.keys(all).length) {
      select.replaceChildren(...Object.keys(all).map((name) => new Option(name, name)));
      if (before in all) select.value = before;
    }
    this.#draw();
  }

  #draw() {
    const run = this.known;
    if (!run) return;
    const points = { ...run.metrics, ...run.curves }[byId("curve").value] ?? [];
    const mark = run.snapshots[Number(byId("timeline").value)]?.kimg ?? null;
    const inside = points.length && mark >= points[0][0] && mark <= points.at(-1)[0];
    chart(byId("chart"), points, { mark: inside ? mark : null, unit: "thousand images" });
  }

  #travel(moving) {
    const snapshot = this.known?.snapshots[Number(byId("timeline").value)];
    if (snapshot) this.store.set({ network: snapshot.name }, { moving });
  }

  async #show(which) {
    this.beside = which;
    for (const name of ["reals", "fakes"]) byId(`show_${name}`).setAttribute("aria-pressed", String(name === which));
    const image = byId("beside");
    image.hidden = true;
    if (!which) return;
    const blob = await ask(`/api/run.png?which=${which}&run=${encodeURIComponent(this.name)}`, { as: "blob" });
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(blob);
    image.alt = which === "reals" ? "Real images of the run" : "The run's newest grid of fakes";
    image.hidden = false;
  }
}
