// Settings by a name, kept in this browser.

const KEY = "sg3-presets";
const byId = (id) => document.getElementById(id);

const stored = () => {
  try { return JSON.parse(localStorage.getItem(KEY)) ?? {}; } catch { return {}; }
};

export function presets(store, say) {
  const list = () => {
    byId("preset_list").replaceChildren(...Object.entries(stored()).map(([name, state]) => {
      const item = document.createElement("li"), use = document.createElement("button"), drop = document.createElement("button");
      Object.assign(use, { type: "button", textContent: name });
      use.addEventListener("click", () => {
        const gone = Object.fromEntries(Object.keys(store.state).map((key) => [key, null]));
        store.set({ ...gone, ...state });
      });
      Object.assign(drop, { type: "button", textContent: "×", ariaLabel: `Remove ${name}` });
      drop.addEventListener("click", () => { const { [name]: _, ...rest } = stored(); keep(rest); });
      item.append(use, " ", drop);
      return item;
    }));
  };
  const keep = (all) => { localStorage.setItem(KEY, JSON.stringify(all)); list(); };
  byId("preset_save").addEventListener("click", () => {
    const name = byId("preset_name").value.trim() || `seed ${store.get("seed")}`;
    keep({ ...stored(), [name]: store.state });
    say("Kept in this browser");
  });
  list();
}
