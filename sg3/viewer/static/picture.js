// The picture itself: frames are painted as they come; one that is out of date is marked.

const MARK_AFTER = 150;  // milliseconds
const MAGNIFIED = 4;  // from here on, pixels are shown as squares

export class Picture {
  constructor() {
    this.canvas = document.getElementById("picture");
    this.frame = document.getElementById("frame");
    this.old = document.getElementById("old");
    this.context = this.canvas.getContext("2d");
    this.shown = 0;
    this.timer = 0;
    this.painting = Promise.resolve();
    new ResizeObserver(() => this.#fit()).observe(this.canvas);
  }

  /** Paint a frame; resolves to whether it was. Frames are painted in the order they come. */
  paint({ header, blob, isNewest }) {
    this.painting = this.painting.then(async () => {
      const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
      const { small } = header;
      if (!small && (this.canvas.width !== bitmap.width || this.canvas.height !== bitmap.height)) {
        this.canvas.width = bitmap.width;
        this.canvas.height = bitmap.height;
        const longer = Math.max(bitmap.width, bitmap.height);
        this.frame.style.setProperty("--wide", bitmap.width / longer);
        this.frame.style.setProperty("--high", bitmap.height / longer);
        this.#fit();
      }
      this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      this.context.drawImage(bitmap, 0, 0, this.canvas.width, this.canvas.height);
      bitmap.close();
      this.canvas.dataset.frame = header.id;
      this.canvas.dataset.mime = header.mime;
      if (isNewest) this.settle(small);
    }).catch(() => { /* the next frame will do */ });
    return this.painting;
  }

  /** A newer picture is on its way. */
  expect() {
    if (!this.timer) this.timer = setTimeout(() => this.#mark(true), MARK_AFTER);
  }

  /** The newest picture is there, or a coarse first impression of it. */
  settle(coarse = false) {
    clearTimeout(this.timer);
    this.timer = 0;
    this.#mark(false, coarse);
  }

  /** What is wanted cannot be shown: the picture that is there stays, as an old one. */
  fail() {
    this.settle();
    if (!this.canvas.dataset.frame) return;
    this.#mark(true);
    this.canvas.setAttribute("aria-busy", "false");
  }

  #mark(stale, coarse = false) {
    this.frame.classList.toggle("stale", stale);
    this.old.textContent = coarse ? "coarse" : "old";
    this.old.hidden = !stale && !coarse;
    this.canvas.setAttribute("aria-busy", String(stale || coarse));
  }

  #fit() {
    this.canvas.classList.toggle("pixels", this.canvas.clientWidth >= MAGNIFIED * this.canvas.width);
  }
}
