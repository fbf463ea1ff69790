// What happens on the picture, as a video: recorded by the browser as it is shown.

import { download } from "./keep.js";

const RATE = 30;

export function recording(canvas, say) {
  const button = document.getElementById("record");
  let recorder = null;
  if (!globalThis.MediaRecorder || !canvas.captureStream) { button.disabled = true; return; }
  button.addEventListener("click", () => {
    if (recorder) { recorder.stop(); return; }
    const pieces = [];
    recorder = new MediaRecorder(canvas.captureStream(RATE), { videoBitsPerSecond: 8e6 });
    recorder.addEventListener("dataavailable", ({ data }) => { if (data.size) pieces.push(data); });
    recorder.addEventListener("stop", () => {
      download(new Blob(pieces, { type: recorder.mimeType }), "sg3.webm");
      recorder = null;
      button.setAttribute("aria-pressed", "false");
    });
    recorder.start(250);
    button.setAttribute("aria-pressed", "true");
    say("Recording; press again to stop");
  });
}
