// Projection: an image that is dropped or chosen, the search for its latent, and both to compare.

import { act, follow, startProjection } from "./tasks.js";

const byId = (id) => document.getElementById(id);

export class Project {
  constructor(store, fail) {
    this.store = store;
    this.task = null;
    const run = (file) => this.#run(file).catch(fail);
    byId("project_file").addEventListener("change", ({ target }) => {
      if (target.files[0]) run(target.files[0]);
      target.value = "";
    });
    byId("project_stop").addEventListener("click", () => act(this.task, "stop").catch(fail));
    byId("project_before").addEventListener("click", () => this.#before(byId("beside").hidden));
    const stage = byId("stage");
    stage.addEventListener("dragover", (event) => event.preventDefault());
    stage.addEventListener("drop", (event) => {
      event.preventDefault();
      const file = [...event.dataTransfer.files].find(({ type }) => type.startsWith("image/"));
      if (file && !byId("projecting").hidden) { byId("projecting").open = true; run(file); }
    });
  }

  async #run(file) {
    const image = byId("beside"), bar = byId("project_progress");
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(file);
    image.alt = "The image to project";
    this.#before(true);
    bar.hidden = false;
    bar.value = 0;
    byId("project_stop").disabled = byId("project_before").disabled = false;
    const query = this.store.query();
    query.set("steps", byId("project_steps").value);
    query.set("space", byId("project_space").value);
    byId("project_text").textContent = "getting ready, looking where to start";
    try {
      const status = await follow(() => startProjection(query, file), (now) => {
        this.task = now.task;
        if (!now.steps) return;
        bar.value = now.step / now.steps;
        byId("project_text").textContent = `${now.step} of ${now.steps}, distance ${now.distance.toPrecision(3)}`;
      });
      if (!status.latent) { byId("project_text").textContent = status.ended; return; }
      this.#before(false);
      const { rotate = null, translate = null } = status.place;
      this.store.set({
        latent: status.latent, trunc: null, cutoff: null, mix_seed: null, mix_layers: null, directions: null,
        scale: null, rotate, translate,
      });
      byId("project_text").textContent = `done, PSNR ${status.psnr?.toFixed(1) ?? "∞"} dB`;
    } finally {
      byId("project_stop").disabled = true;
      bar.hidden = true;
    }
  }

  #before(on) {
    byId("beside").hidden = !on;
    byId("project_before").setAttribute("aria-pressed", String(on));
  }
}
