// Which network is shown: what was shown lately, runs with their snapshots, files.

import { ask } from "./api.js";

const KEY = "sg3-recent";
const MOST = 6;
const byId = (id) => document.getElementById(id);

const stored = () => {
  try { return JSON.parse(localStorage.getItem(KEY)) ?? []; } catch { return []; }
};

export class Picker {
  constructor(store, fail) {
    this.store = store;
    this.listed = [];
    byId("network").addEventListener("change", () => store.set({ network: byId("network").value }));
    store.addEventListener("change", () => this.#place());
    byId("compare").addEventListener("input", () => {  // before the store hears of it: there must be something to compare
      if (!store.get("network_b")) store.set({ network_b: this.listed.at(-1).name }, { replace: true });
    });
    addEventListener("focus", () => this.refresh().catch(fail));  // back at this window: others may have come
  }

  /** Ask which there are. */
  async refresh() {
    const { networks } = await ask("/api/networks");
    if (JSON.stringify(networks) === JSON.stringify(this.listed)) return;
    this.listed = networks;
    this.#fill();
  }

  /** This one is shown now. */
  remember(name) {
    localStorage.setItem(KEY, JSON.stringify([name, ...stored().filter((other) => other !== name)].slice(0, MOST)));
    this.#fill();
  }

  #fill() {
    const names = new Set(this.listed.map(({ name }) => name));
    const recent = stored().filter((name) => names.has(name));
    const groups = new Map([["Networks", []]]);
    for (const { name, run } of this.listed) {
      const group = run ? `Run ${run}` : name.includes("/") ? `Folder ${name.slice(0, name.lastIndexOf("/"))}` : "Networks";
      groups.set(group, [...(groups.get(group) ?? []), name]);
    }
    for (const id of ["network", "network_b"]) {
      const select = byId(id);
      if (id === "network" && recent.length > 1) groups.set("Shown lately", recent);
      else groups.delete("Shown lately");
      select.replaceChildren(...[...groups].filter(([, inside]) => inside.length).map(([title, inside]) => {
        const group = document.createElement("optgroup");
        group.label = title;
        group.append(...inside.map((name) => new Option(name, name)));
        return group;
      }));
    }
    byId("network_b").prepend(new Option("choose", ""));
    byId("network_b").value = this.store.get("network_b") ?? "";
    this.#place();
  }

  #place() { byId("network").value = this.store.get("network") || this.listed[0]?.name; }
}
