// The websocket: states go out, frames come in, one at a time. After a loss of the connection it comes back by itself.

import { socketAddress } from "./api.js";

const LONGEST_WAIT = 8000;

export class Link extends EventTarget {
  constructor() {
    super();
    this.number = 0;
    this.wanted = null;
    this.wait = 250;
  }

  connect() {
    this.socket = new WebSocket(socketAddress());
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.wait = 250;
      this.tell("connection", { connected: true });
      if (this.wanted) this.#send();
    };
    this.socket.onmessage = (event) => this.#receive(event.data);
    this.socket.onclose = () => {
      this.tell("connection", { connected: false });
      setTimeout(() => this.connect(), this.wait);
      this.wait = Math.min(2 * this.wait, LONGEST_WAIT);
    };
  }

  /** Ask for the picture of a state. */
  show(state, moving) {
    this.number += 1;
    this.wanted = { type: "state", id: this.number, moving, state, since: performance.now() };
    if (this.socket.readyState === WebSocket.OPEN) this.#send();
    return this.number;
  }

  #send() {
    const { since, ...message } = this.wanted;
    this.socket.send(JSON.stringify(message));
  }

  #receive(data) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      if (message.type === "error" && (message.id === null || message.id >= this.number)) this.tell("failure", message);
      else if (message.type !== "error") this.tell(message.type, message);
      return;
    }
    const length = new DataView(data).getUint32(0);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    this.socket.send(JSON.stringify({ type: "got", id: header.id }));
    const blob = new Blob([new Uint8Array(data, 4 + length)], { type: header.mime });
    this.tell("frame", { header, blob, isNewest: header.id === this.number, since: this.wanted.since });
  }

  tell(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }
}
