// One curve with its axes' ends: enough to see where it goes.

/** Draw points [[x, y], ...] into a canvas; `mark` is an x to mark. */
export function chart(canvas, points, { mark = null, unit = "" } = {}) {
  const width = canvas.clientWidth, height = canvas.clientHeight, ratio = devicePixelRatio || 1;
  if (!width) return;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const c = canvas.getContext("2d");
  c.scale(ratio, ratio);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name);
  c.font = "11px system-ui, sans-serif";
  if (!points.length) {
    c.fillStyle = colour("--dim");
    c.fillText("nothing yet", 8, 18);
    return;
  }
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const left = 6, right = width - 6, top = 16, bottom = height - 16;
  const px = (x) => left + ((x - x0) / (x1 - x0 || 1)) * (right - left);
  const py = (y) => bottom - ((y - y0) / (y1 - y0 || 1)) * (bottom - top);
  if (mark !== null) {
    c.strokeStyle = colour("--dim");
    c.setLineDash([3, 3]);
    c.beginPath();
    c.moveTo(px(mark), top);
    c.lineTo(px(mark), bottom);
    c.stroke();
    c.setLineDash([]);
  }
  c.strokeStyle = colour("--accent");
  c.lineWidth = 1.5;
  c.beginPath();
  points.forEach(([x, y], n) => (n ? c.lineTo(px(x), py(y)) : c.moveTo(px(x), py(y))));
  c.stroke();
  if (points.length === 1) c.strokeRect(px(x0) - 1, py(y0) - 1, 2, 2);
  c.fillStyle = colour("--dim");
  const short = (value) => String(Number(value.toPrecision(4)));
  c.fillText(short(y1), left, 11);
  c.fillText(short(y0), left, height - 4);
  c.textAlign = "right";
  c.fillText(`${short(x0)} to ${short(x1)} ${unit}`, right, height - 4);
}
