// How well the network follows its own transform: EQ-T and EQ-R of this picture, whenever it has come to rest.

import { ask } from "./api.js";

const AFTER = 300;

export function readings(store, facts, fail) {
  const text = document.getElementById("readings"), part = document.getElementById("transform");
  let timer = 0, asking = null;
  const read = async () => {
    const query = store.query().toString();
    asking = new AbortController();
    const { eqt, eqr } = await ask(`/api/equivariance?${query}`, { signal: asking.signal });
    if (query !== store.query().toString()) return;
    const said = [["EQ-T", eqt], ["EQ-R", eqr]].filter(([, value]) => value !== null);
    text.textContent = said.map(([name, value]) => `${name} ${value.toFixed(1)} dB`).join(", ");
  };
  const follow = ({ detail = {} } = {}) => {
    clearTimeout(timer);
    asking?.abort();
    const isMoved = store.get("translate").some(Boolean) || store.get("rotate") % 360 !== 0;
    if (!isMoved || !facts()?.can_move) { text.textContent = ""; return; }
    if (part.open && !detail.moving) timer = setTimeout(() => read().catch(fail), AFTER);
  };
  store.addEventListener("change", follow);
  part.addEventListener("toggle", () => follow());
}
