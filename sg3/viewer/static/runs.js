// A run, while it trains or afterwards: its time line, curves, real images; the newest snapshot is followed if asked for.

import { ask } from "./api.js";
import { chart } from "./chart.js";
import { label } from "./controls.js";

const EVERY = 5000;
const SHOWN = ["reals", "fakes", "both"];
const byId = (id) => document.getElementById(id);

export class Runs {
  /** `again` shows the present state anew, `hasNew` hears of new snapshots. */
  constructor(store, fail, again, hasNew) {
    this.store = store;
    this.fail = fail;
    this.again = again;
    this.hasNew = hasNew;
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
    for (const which of SHOWN) {
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
      if (isNew) this.hasNew();
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
    if (this.beside && this.beside !== "reals" && this.#kimg() !== this.of) this.#show(this.beside).catch(this.fail);
  }

  /** Of the snapshot at the time line's place. */
  #kimg() { return this.known?.snapshots[Number(byId("timeline").value)]?.kimg ?? 0; }

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

  /** Over the picture: real images, the fakes of the snapshot at the time line's place, or both side by side. */
  async #show(which) {
    this.beside = which;
    const kimg = this.of = this.#kimg();
    for (const name of SHOWN) byId(`show_${name}`).setAttribute("aria-pressed", String(name === which));
    if (!which) { byId("beside").hidden = byId("pair").hidden = true; return; }
    const load = async (name) => {
      const at = name === "fakes" ? `&kimg=${kimg}` : "";
      return URL.createObjectURL(await ask(`/api/run.png?which=${name}&run=${encodeURIComponent(this.name)}${at}`, { as: "blob" }));
    };
    const words = { reals: "Real images of the run", fakes: `The run's fakes at ${kimg} k` };
    const put = (image, url, text) => {
      URL.revokeObjectURL(image.src);
      image.src = url;
      image.alt = text;
    };
    const urls = await Promise.all((which === "both" ? ["reals", "fakes"] : [which]).map(load));
    if (this.beside !== which || this.of !== kimg) return;
    if (which === "both") {
      put(byId("pair_reals"), urls[0], words.reals);
      put(byId("pair_fakes"), urls[1], words.fakes);
      byId("pair_words").textContent = words.fakes;
    } else put(byId("beside"), urls[0], words[which]);
    byId("pair").hidden = which !== "both";
    byId("beside").hidden = which === "both";
  }
}
