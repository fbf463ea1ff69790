// The page: puts its parts together.

import { animation } from "./animate.js";
import { ask } from "./api.js";
import { bind, label, unfolded } from "./controls.js";
import { Directions } from "./directions.js";
import { Drag } from "./drag.js";
import { Grid } from "./grid.js";
import { Handles } from "./handles.js";
import { keeping } from "./keep.js";
import { Keyframes } from "./keyframes.js";
import { keys } from "./keys.js";
import { Layers } from "./layers.js";
import { Link } from "./link.js";
import { Mixing } from "./mixing.js";
import { Picker } from "./picker.js";
import { Picture } from "./picture.js";
import { Pinch } from "./pinch.js";
import { Plane } from "./plane.js";
import { presets } from "./presets.js";
import { Project } from "./project.js";
import { readings } from "./readings.js";
import { recording } from "./record.js";
import { Runs } from "./runs.js";
import { Speed } from "./speed.js";
import { Store } from "./store.js";

const SETTLED = 200;  // milliseconds without a change: then the picture is shown as it is, without loss
const byId = (id) => document.getElementById(id);

let facts = null;
let shown = 0;
let asked = 0;
let lastAsked = 0;
let settling = 0;
let queued = 0;

function say(text) {
  const toast = byId("toast");
  toast.textContent = text;
  toast.classList.add("shown");
  setTimeout(() => toast.classList.remove("shown"), 2500);
}

function fail(error) {
  byId("message").textContent = error.message;
  byId("message").hidden = false;
}

function theme() {
  const stored = localStorage.getItem("sg3-theme");
  const dark = stored ? stored === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

async function start() {
  theme();
  const description = await ask("/api/openapi.json");
  const store = new Store(description.components.schemas.State.properties);
  const session = await ask("/api/session");
  const picture = new Picture(), speed = new Speed();
  const plane = new Plane(store), mixing = new Mixing(store), handles = new Handles(store);
  const ready = () => shown === asked;
  const stopAnimation = animation(store, ready);
  byId("cutoff").dataset.all = "1";
  bind(store, byId("panel"));
  unfolded(byId("panel"));
  const kept = keeping(store, () => facts, say, fail);
  byId("copy_look").hidden = !session.look;
  const again = () => store.dispatchEvent(new CustomEvent("change", { detail: { moving: false } }));
  const picker = new Picker(store, fail);
  const runs = new Runs(store, fail, again, () => picker.refresh().catch(fail));
  for (const Part of [Layers, Grid, Project]) new Part(store, fail);
  const directions = new Directions(store, fail);
  const drag = new Drag(store, fail);
  const keyframes = new Keyframes(store, () => facts, ready, kept.copy, fail);
  readings(store, () => facts, fail);
  recording(byId("picture"), say);
  presets(store, say);

  const link = new Link();
  const send = (moving) => {
    queued = 0;
    lastAsked = performance.now();
    asked = link.show(store.state, moving);
    picture.canvas.dataset.asked = asked;
    picture.expect();
    clearTimeout(settling);
    if (moving) settling = setTimeout(() => send(false), SETTLED);
  };
  store.addEventListener("change", ({ detail }) => {
    byId("undo").disabled = !store.past.length;
    byId("redo").disabled = !store.future.length;
    byId("message").hidden = true;
    if (!facts || facts.of !== store.get("network")) { choose(); return; }
    const wait = detail.moving ? lastAsked + 1000 / Number(byId("limit").value) - performance.now() : 0;
    clearTimeout(queued);
    if (wait > 1) queued = setTimeout(() => send(true), wait);
    else send(detail.moving);
  });
  link.addEventListener("frame", async ({ detail }) => {
    await picture.paint(detail);
    shown = Math.max(shown, detail.header.id);
    if (detail.isNewest) speed.add(performance.now() - detail.since, detail.header.ms);
    const [width, height] = detail.header.size;
    byId("status").textContent = `${width} × ${height} · ${detail.header.ms.toFixed(0)} ms`;
  });
  link.addEventListener("failure", ({ detail }) => {
    shown = asked;
    picture.fail();
    fail(detail.error);
  });
  link.addEventListener("connection", ({ detail }) => {
    if (detail.connected) { byId("message").hidden = true; return; }
    shown = asked;
    fail(new Error("The connection to the server is lost; trying again. Is sg3 view still running?"));
  });

  /** Find out about the network, and fit the form to it. */
  async function choose() {
    const name = store.get("network");
    facts = { of: name };
    picture.canvas.dataset.asked = "network";
    picture.expect();
    try {
      facts = { ...(await ask(`/api/network?network=${encodeURIComponent(name)}`)), of: name };
    } catch (error) {
      facts = { of: name };
      picture.fail();
      fail(error);
      return;
    }
    if (store.get("network") !== name) return;
    fit(facts);
    mixing.layers(facts.layers);
    picker.remember(facts.name);
    runs.attach(facts.run);
    kept.show();
    keyframes.attach(facts);
    directions.attach(facts);
    const defaults = {};
    if (facts.classes && store.get("class") === null) defaults.class = 0;
    if (!facts.classes) Object.assign(defaults, { class: null, class_b: null });
    if (!facts.can_move) Object.assign(defaults, { translate: null, rotate: null, scale: null, untransform: null });
    if (!facts.can_truncate) Object.assign(defaults, { trunc: null, directions: null });
    if (store.get("mix_layers").some((n) => n >= facts.layers.length)) defaults.mix_layers = null;
    store.set(defaults, { replace: true });
  }

  function fit(network) {
    byId("classes").hidden = !network.classes;
    for (const id of ["class", "class_b"]) byId(id).max = network.classes - 1;
    byId("truncation").hidden = byId("mixing").hidden = !network.can_truncate;
    const mayChange = network.can_truncate && session.role === "full";
    byId("directions").hidden = !network.can_truncate;
    byId("dragging").hidden = byId("projecting").hidden = !mayChange;
    drag.clear();
    byId("noise").hidden = !network.has_noise;
    byId("transform").hidden = !network.can_move;
    handles.fit(network.size, network.whole);
    pinch.fit(network.whole);
    if (!network.can_move) { handles.show(false); stopAnimation(); }
    const cutoff = byId("cutoff");
    cutoff.max = network.layers.length;
    cutoff.dataset.all = String(network.layers.length);
    document.title = `${network.name} · sg3 view`;
  }

  await picker.refresh();
  const pinch = new Pinch(store, byId("picture"), () => Boolean(facts?.can_move) && !drag.isPlacing());
  plane.dragging(byId("picture"), () => 2 / byId("picture").clientWidth, () => !drag.isPlacing() && !pinch.isActive());
  const walk = () => {
    const on = byId("walk").getAttribute("aria-pressed") !== "true";
    byId("walk").setAttribute("aria-pressed", String(on));
    plane.walk(on, () => Number(byId("speed").value), ready);
  };
  const actions = {
    undo: () => store.undo(), redo: () => store.redo(), save: kept.save, walk, step: (dx, dy) => plane.step(dx, dy),
    random: () => store.set({ seed: crypto.getRandomValues(new Uint32Array(1))[0] % 100000, x: 0, y: 0 }),
  };
  for (const name of ["undo", "redo", "walk", "random"]) byId(name).addEventListener("click", actions[name]);
  keys(actions);
  byId("snap").addEventListener("click", () => {
    const at = plane.place();
    plane.go({ seed: at.seed, x: Math.round(at.x), y: Math.round(at.y) });
  });
  byId("reset").addEventListener("click", () => {
    store.set(Object.fromEntries(Object.keys(store.state).filter((name) => name !== "network").map((n) => [n, null])));
    if (facts?.classes) store.set({ class: 0 });
  });
  byId("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme !== "dark";
    localStorage.setItem("sg3-theme", dark ? "dark" : "light");
    theme();
    plane.draw();
    speed.draw();
  });
  for (const id of ["speed", "limit"]) {
    const field = byId(id), show = () => label(field, id === "limit" ? `${field.value}/s` : Number(field.value).toFixed(1));
    field.addEventListener("input", show);
    show();
  }
  byId("speedometer").addEventListener("toggle", () => speed.draw());
  byId("panel").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", () => store.readAddress());
  link.connect();
  store.readAddress();
}

start().catch((error) => {
  fail(error.status === 401 ? new Error("Open the whole address that sg3 view has printed: the token is missing or wrong.")
    : error);
});
