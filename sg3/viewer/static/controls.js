// Fields of the form and the store, kept the same: a field's name is that of its setting.

/** Bind all named fields. */
export function bind(store, form) {
  for (const field of form.querySelectorAll("[name]")) {
    const name = field.name;
    const write = (moving) => {
      const value = read(field);
      if (value !== undefined) store.set({ [name]: value }, { moving });
    };
    field.addEventListener("input", () => { if (field.type === "range") write(true); });
    field.addEventListener("change", () => write(false));
    if (field.type === "range") {
      field.title ||= "Double-click: back to its default";
      field.addEventListener("dblclick", () => store.set({ [name]: null }));
    }
    const follow = () => { if (document.activeElement !== field || field.type !== "number") show(field, store.get(name)); };
    store.addEventListener("change", follow);
    field.addEventListener("blur", follow);
    follow();
  }
}

/** Parts of the form are open as they were when this browser last showed them. */
export function unfolded(form) {
  const key = "sg3-open", parts = [...form.querySelectorAll("details")];
  let stored = {};
  try { stored = JSON.parse(localStorage.getItem(key)) ?? {}; } catch { /* as they are, then */ }
  parts.forEach((part, n) => {
    const name = part.id || String(n);
    if (name in stored) part.open = stored[name];
    part.addEventListener("toggle", () => {
      stored[name] = part.open;
      localStorage.setItem(key, JSON.stringify(stored));
    });
  });
}

/** Say beside a slider what it says; to who does not see it, the slider says it itself. */
export function label(field, text) {
  const output = field.parentElement.querySelector("output");
  if (output) output.textContent = text;
  field.setAttribute("aria-valuetext", text);
}

function read(field) {
  if (field.type === "checkbox") return field.checked;
  if (field.type === "number") {
    if (field.value === "") return null;
    return field.validity.valid ? Number(field.value) : undefined;
  }
  if (field.type === "range") {
    const number = Number(field.value);
    return field.dataset.all === String(number) ? null : number;
  }
  return field.value;
}

function show(field, value) {
  if (field.type === "checkbox") { field.checked = Boolean(value); return; }
  if (field.type === "range") {
    field.value = value ?? field.dataset.all ?? 0;
    label(field, value === null && field.dataset.all ? "all" : String(Math.round(Number(field.value) * 1000) / 1000));
    return;
  }
  field.value = value ?? "";
}
