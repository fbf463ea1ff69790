// The keyboard, where no field has it.

export function keys(actions) {
  addEventListener("keydown", (event) => {
    const isField = event.target.matches?.("input:not([type=checkbox]):not([type=range]), select, textarea");
    const withControl = event.ctrlKey || event.metaKey;
    if (withControl && event.key.toLowerCase() === "z" && !isField) {
      event.preventDefault();
      (event.shiftKey ? actions.redo : actions.undo)();
    } else if (withControl && event.key.toLowerCase() === "y" && !isField) {
      event.preventDefault();
      actions.redo();
    }
    if (isField || withControl || event.altKey || event.target.type === "range") return;
    const onButton = event.target.matches?.("button, summary, input");
    const simple = {
      r: actions.random, s: actions.save, " ": onButton ? null : actions.walk,
      ArrowLeft: () => actions.step(-1, 0), ArrowRight: () => actions.step(1, 0),
      ArrowUp: () => actions.step(0, -1), ArrowDown: () => actions.step(0, 1),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!simple) return;
    event.preventDefault();
    simple();
  });
}
