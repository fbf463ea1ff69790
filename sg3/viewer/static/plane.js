// The plane of seeds: from a seed to the right lie the next ones, downwards each step is a hundred. Between four seeds
// pictures blend. Drag it here or on the picture; the walk goes along a row.

const ROW = 100;
const SEEDS = 2 ** 32;
const CELL = 64;  // pixels of the map from seed to seed

export const wrapped = (seed) => ((seed % SEEDS) + SEEDS) % SEEDS;

/** The same place, with x and y in 0..1. */
export function normal(seed, x, y) {
  const column = Math.floor(x), row = Math.floor(y);
  const round = (part) => Math.round(part * 1e6) / 1e6;
  return { seed: wrapped(seed + column + ROW * row), x: round(x - column), y: round(y - row) };
}

export class Plane {
  constructor(store) {
    this.store = store;
    this.canvas = document.getElementById("plane");
    this.where = document.getElementById("where");
    this.walking = false;
    this.dragging(this.canvas, () => 1 / CELL);
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    store.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  place() { return { seed: this.store.get("seed"), x: this.store.get("x"), y: this.store.get("y") }; }

  /** Go somewhere. */
  go({ seed, x, y }, moving = false) { this.store.set(normal(seed, x, y), { moving }); }

  step(dx, dy, moving = false) {
    const at = this.place();
    this.go({ seed: at.seed, x: at.x + dx, y: at.y + dy }, moving);
  }

  /** Have an element dragged; `scale()` is how many seeds a pixel is. */
  dragging(element, scale, isActive = () => true) {
    let start = null;
    element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || start || !isActive()) return;
      element.setPointerCapture(event.pointerId);
      start = { ...this.place(), pointer: event.pointerId, left: event.clientX, top: event.clientY };
    });
    element.addEventListener("pointermove", (event) => {
      if (start === null || event.pointerId !== start.pointer) return;
      if (!isActive()) { this.go(start); start = null; return; }
      const by = scale();
      const x = start.x + (start.left - event.clientX) * by, y = start.y + (start.top - event.clientY) * by;
      this.go({ seed: start.seed, x, y }, true);
    });
    const end = (event) => {
      if (start === null || event.pointerId !== start.pointer) return;
      start = null;
      this.go(this.place());
    };
    element.addEventListener("pointerup", end);
    element.addEventListener("pointercancel", end);
  }

  /** Start or stop walking; `ready` says whether the last frame has been shown, so that we never run ahead. */
  walk(on, speed, ready) {
    this.walking = on;
    let then = performance.now();
    const step = (now) => {
      if (!this.walking) { this.go(this.place()); return; }
      if (ready()) {
        const seconds = Math.min(Math.max(now - then, 0) / 1000, 0.5);
        then = now;
        this.step(speed() * seconds, 0, true);
      }
      requestAnimationFrame(step);
    };
    if (on) requestAnimationFrame(step);
  }

  #key(event) {
    const by = event.shiftKey ? 1 : 0.1;
    const steps = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.step(...steps[event.key]);
  }

  draw() {
    const { seed, x, y } = this.place();
    const ratio = devicePixelRatio || 1;
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight || 160;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const c = this.canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    c.scale(ratio, ratio);
    c.font = "11px system-ui, sans-serif";
    const columns = Math.ceil(width / CELL / 2) + 1, rows = Math.ceil(height / CELL / 2) + 1;
    for (let row = -rows; row <= rows; row++) {
      for (let column = -columns; column <= columns; column++) {
        const px = width / 2 + (column - x) * CELL, py = height / 2 + (row - y) * CELL;
        c.strokeStyle = style.getPropertyValue("--line");
        c.strokeRect(px, py, CELL, CELL);
        c.fillStyle = style.getPropertyValue("--dim");
        c.beginPath();
        c.arc(px, py, 2.5, 0, 7);
        c.fill();
        const there = seed + column + ROW * row;
        // Beyond the ends the plane goes on at the other end; ten digits there would only confuse.
        if (there >= 0 && there < SEEDS && px >= 0) c.fillText(String(there), px + 5, py + 12, CELL - 8);
      }
    }
    c.fillStyle = style.getPropertyValue("--accent");
    c.beginPath();
    c.arc(width / 2, height / 2, 6, 0, 7);
    c.fill();
    const off = x || y ? `, ${x.toFixed(2)} right, ${y.toFixed(2)} down` : "";
    this.where.textContent = `seed ${seed}${off}`;
  }
}
