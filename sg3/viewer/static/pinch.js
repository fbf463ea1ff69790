// Two fingers on the picture: what lies under them stays under them, by moving, turning and scaling. A touchpad's pinch
// scales, too.

const LEAST = 0.1, MOST = 10;  // scale

export class Pinch {
  /** `canMove` says whether the network's picture can be moved at all. */
  constructor(store, element, canMove) {
    this.store = store;
    this.element = element;
    this.canMove = canMove;
    this.fingers = new Map();  // pointer -> place from the middle, both in widths of the picture
    this.start = null;
    this.whole = 1;  // height of the network's images, in widths: more than the picture's where black bars are cut off
    element.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "touch") return;
      this.fingers.set(event.pointerId, this.#place(event));
      element.setPointerCapture(event.pointerId);
      this.#begin();
    });
    element.addEventListener("pointermove", (event) => {
      if (!this.fingers.has(event.pointerId)) return;
      this.fingers.set(event.pointerId, this.#place(event));
      if (this.start && this.canMove()) this.#move();
    });
    const end = (event) => {
      if (!this.fingers.delete(event.pointerId) || !this.start) return;
      this.start = null;
      this.store.set({});
    };
    for (const name of ["pointerup", "pointercancel"]) element.addEventListener(name, end);
    element.addEventListener("wheel", (event) => {
      if (!event.ctrlKey || !canMove()) return;
      event.preventDefault();
      this.store.set({ scale: limited(this.store.get("scale") * Math.exp(-event.deltaY / 200)) }, { moving: true });
    }, { passive: false });
  }

  /** To images of [height, width]. */
  fit([height, width]) { this.whole = height / width; }

  /** Whether there is more than one finger: then a drag of one is none. */
  isActive() { return this.fingers.size > 1; }

  #place(event) {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2].map((v) => v / box.width);
  }

  #begin() {
    const get = (name) => this.store.get(name);
    this.start = this.fingers.size === 2
      ? { ...this.#now(), translate: get("translate"), rotate: get("rotate"), scale: get("scale") } : null;
  }

  /** The middle between the fingers, their distance and direction. */
  #now() {
    const [[ax, ay], [bx, by]] = this.fingers.values();
    return { x: (ax + bx) / 2, y: (ay + by) / 2, far: Math.hypot(bx - ax, by - ay), angle: Math.atan2(by - ay, bx - ax) };
  }

  #move() {
    const { start } = this, now = this.#now();
    if (!start.far) return;
    const scale = limited(start.scale * (now.far / start.far)), by = scale / start.scale;
    const turn = now.angle - start.angle, c = Math.cos(turn) * by, s = Math.sin(turn) * by;
    const [dx, dy] = [start.translate[0] - start.x, start.translate[1] * this.whole - start.y];
    const translate = [now.x + c * dx - s * dy, (now.y + s * dx + c * dy) / this.whole]
      .map((v) => rounded(Math.min(Math.max(v, -10), 10)));
    let rotate = start.rotate - (turn * 180) / Math.PI;
    rotate -= 360 * Math.round(rotate / 360);
    this.store.set({ translate, rotate: Math.round(rotate * 10) / 10, scale }, { moving: true });
  }
}

const rounded = (value) => Math.round(value * 1000) / 1000;
const limited = (scale) => rounded(Math.min(Math.max(scale, LEAST), MOST));
