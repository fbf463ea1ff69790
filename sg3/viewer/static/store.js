// The state of the page: what the picture depends on, its history, and the address that says it all.
//
// Names, kinds and defaults of the settings come from the server's own description; a setting at its default is left out.

const HISTORY = 200;
const BLEND = ["latent", "latent_b", "seed_b", "seed_mix"];

export class Store extends EventTarget {
  constructor(properties) {
    super();
    this.properties = properties;
    this.state = {};
    this.past = [];
    this.future = [];
    this.committed = "{}";
    this.extras = new URLSearchParams();  // of the address, that are no settings: token
  }

  /** The value of a setting, its default if it is not set; null if it has none. */
  get(name) {
    return this.state[name] ?? this.properties[name]?.default ?? null;
  }

  /** Change settings. `moving`: more of the same is to come, so this is no step of the history; `replace`: the present
   *  step is changed. */
  set(changes, { moving = false, replace = false } = {}) {
    const next = { ...this.state };
    const another = ["seed", "x", "y", "latent"].some((name) => name in changes);  // is shown: what is set with it stays
    if (another) for (const name of BLEND) if (!(name in changes)) delete next[name];
    for (const [name, value] of Object.entries(changes)) {
      const plain = this.properties[name]?.default;
      if (value === null || value === undefined || JSON.stringify(value) === JSON.stringify(plain)) delete next[name];
      else next[name] = value;
    }
    this.state = next;
    if (replace) this.#replace();
    else if (!moving) this.commit();
    this.dispatchEvent(new CustomEvent("change", { detail: { moving } }));
  }

  commit() {
    const now = JSON.stringify(this.state);
    if (now === this.committed) return;
    this.past.push(this.committed);
    if (this.past.length > HISTORY) this.past.shift();
    this.future = [];
    this.committed = now;
    this.writeAddress();
  }

  #replace() {
    this.committed = JSON.stringify(this.state);
    this.writeAddress();
  }

  undo() { this.#travel(this.past, this.future); }

  redo() { this.#travel(this.future, this.past); }

  #travel(from, to) {
    if (!from.length) return;
    to.push(this.committed);
    this.committed = from.pop();
    this.state = JSON.parse(this.committed);
    this.writeAddress();
    this.dispatchEvent(new CustomEvent("change", { detail: { moving: false } }));
  }

  /** The state as a query: what the API takes. */
  query() {
    const words = new URLSearchParams();
    for (const name of Object.keys(this.properties)) {
      const value = this.state[name];
      if (value !== undefined) words.set(name, Array.isArray(value) ? value.join(",") : String(value));
    }
    return words;
  }

  /** The whole address, with another token if one is given. */
  address(token = this.extras.get("token")) {
    const words = new URLSearchParams();
    if (token) words.set("token", token);
    for (const [name, value] of this.query()) words.set(name, value);
    return `${location.origin}${location.pathname}#${words}`;
  }

  writeAddress() { history.replaceState(null, "", this.address()); }

  /** Take over what the address says. */
  readAddress() {
    const words = new URLSearchParams(location.hash.slice(1));
    const state = {};
    for (const [name, text] of words) {
      const kind = this.properties[name];
      if (!kind) { this.extras.set(name, text); continue; }
      const value = read(kind, text);
      if (value !== undefined && JSON.stringify(value) !== JSON.stringify(kind.default)) state[name] = value;
    }
    this.state = state;
    if (this.past.length || this.committed !== "{}") this.commit();
    else this.#replace();
    this.dispatchEvent(new CustomEvent("change", { detail: { moving: false } }));
  }
}

function read(kind, text) {
  if (kind.type === "integer" || kind.type === "number") {
    const number = Number(text);
    return text !== "" && Number.isFinite(number) ? number : undefined;
  }
  if (kind.type === "boolean") return text === "true" || text === "1";
  if (kind.type === "array") {
    const parts = text.split(",").filter((part) => part !== "");
    if (kind.items.type === "string") return parts;
    const numbers = parts.map(Number);
    return numbers.every(Number.isFinite) ? numbers : undefined;
  }
  return text;
}
