// How long frames take: from the input to the picture, and the network's share.

const KEPT = 120;

export class Speed {
  constructor() {
    this.canvas = document.getElementById("graph");
    this.text = document.getElementById("speed_text");
    this.times = [];
  }

  /** A frame has been shown: milliseconds since it was asked for, and those of the network. */
  add(total, network) {
    this.times.push({ total, network });
    if (this.times.length > KEPT) this.times.shift();
    this.draw();
  }

  draw() {
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    if (!width || !this.times.length) return;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const c = this.canvas.getContext("2d");
    c.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement);
    const most = Math.max(50, ...this.times.map((time) => time.total));
    this.times.forEach(({ total, network }, n) => {
      const x = (n * width) / KEPT, bar = Math.max(width / KEPT - 1, 1);
      c.fillStyle = style.getPropertyValue("--line");
      c.fillRect(x, height * (1 - total / most), bar, (height * total) / most);
      c.fillStyle = style.getPropertyValue("--accent");
      c.fillRect(x, height * (1 - network / most), bar, (height * network) / most);
    });
    const middle = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
    const network = middle(this.times.map((time) => time.network));
    const total = middle(this.times.map((time) => time.total));
    this.text.textContent = `median ${total.toFixed(0)} ms from input to picture, of it network ${network.toFixed(0)} ms`;
  }
}
