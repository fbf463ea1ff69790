// The picture kept in motion: right and left, down and up, around, larger and smaller.

import { label } from "./controls.js";

const rounded = (value, to) => Math.round(value * to) / to;
// For each button: what it moves, how far in a second, and between which ends it goes back and forth; a turn has none.
const KINDS = {
  animate_x: { get: (store) => store.get("translate")[0], rate: 0.1, ends: [-0.25, 0.25],
    set: (store, x) => ({ translate: [rounded(x, 1000), store.get("translate")[1]] }) },
  animate_y: { get: (store) => store.get("translate")[1], rate: 0.1, ends: [-0.25, 0.25],
    set: (store, y) => ({ translate: [store.get("translate")[0], rounded(y, 1000)] }) },
  animate_rotate: { get: (store) => store.get("rotate"), rate: 30, ends: null,
    set: (_, angle) => ({ rotate: rounded(angle > 180 ? angle - 360 : angle, 10) }) },
  animate_scale: { get: (store) => Math.log2(store.get("scale")), rate: 0.25, ends: [-1, 1],
    set: (_, power) => ({ scale: rounded(2 ** power, 1000) }) },
};

/** Wire the buttons; `ready` says whether the last frame has been shown, so that we never run ahead. Returns what stops it. */
export function animation(store, ready) {
  const byId = (id) => document.getElementById(id);
  const running = new Map();  // id -> the way it goes, 1 or -1
  const speed = byId("animate_speed"), show = () => label(speed, `${Number(speed.value).toFixed(1)} ×`);
  speed.addEventListener("input", show);
  show();
  let then = 0;
  const step = (now) => {
    if (!running.size) { store.commit(); store.set({}); return; }
    if (ready()) {
      const seconds = Math.min(Math.max(now - then, 0) / 1000, 0.5) * Number(speed.value);
      then = now;
      for (const [id, way] of running) {
        const { get, set, rate, ends } = KINDS[id];
        const value = get(store) + way * rate * seconds;
        const turned = ends && value > ends[1] ? -1 : ends && value < ends[0] ? 1 : way;
        running.set(id, turned);
        store.set(set(store, value), { moving: true });
      }
    }
    requestAnimationFrame(step);
  };
  for (const id of Object.keys(KINDS)) {
    byId(id).addEventListener("click", ({ currentTarget: button }) => {
      const was = running.size;
      if (!running.delete(id)) running.set(id, 1);
      button.setAttribute("aria-pressed", String(running.has(id)));
      if (!was) { then = performance.now(); requestAnimationFrame(step); }
    });
  }
  return () => {
    running.clear();
    for (const id of Object.keys(KINDS)) byId(id).setAttribute("aria-pressed", "false");
  };
}
