// Long work on the server: how far it is, until it is over.

import { ask } from "./api.js";

const EVERY = 120;
const json = { "content-type": "application/json" };

/** Start work, or go on with it: `begin` asks for it. `report` gets every status; resolves to the last. */
export async function follow(begin, report) {
  let status = await begin();
  while (true) {
    report(status);
    if (!status.running) break;
    await new Promise((resolve) => setTimeout(resolve, EVERY));
    status = await ask(`/api/task?task=${status.task}`);
  }
  if (status.error) throw new Error(status.error.message);
  return status;
}

export const act = (task, action, steps = 1) =>
  ask("/api/task", { method: "POST", headers: json, body: JSON.stringify({ task, action, steps }) });

export const startDrag = (asked) => ask("/api/drag", { method: "POST", headers: json, body: JSON.stringify(asked) });

export const startProjection = (query, image) =>
  ask(`/api/project?${query}`, { method: "POST", headers: { "content-type": "application/octet-stream" }, body: image });
