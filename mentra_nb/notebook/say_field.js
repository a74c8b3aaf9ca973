// The line in which a person says something to the model while its turn runs.

function render({ model, el }) {
  const row = document.createElement("form");
  row.style.cssText = "display:flex;flex-wrap:wrap;gap:6px;margin:4px 0;max-width:48em";
  const field = document.createElement("input");
  field.type = "text";
  field.placeholder = "Say something to the model while it works";
  field.setAttribute("aria-label", field.placeholder);
  field.style.cssText =
    "flex:1 1 16em;min-width:0;padding:3px 6px;font:inherit;color:inherit;border-radius:2px;" +
    "border:1px solid var(--jp-border-color1, #999);background:var(--jp-layout-color0, #fff)";
  const button = document.createElement("button");
  button.type = "submit";
  button.textContent = "Say";
  button.style.cssText =
    "padding:3px 12px;font:inherit;color:inherit;cursor:pointer;border-radius:3px;" +
    "border:1px solid var(--jp-border-color1, #999);background:var(--jp-layout-color2, #eee)";
  row.append(field, button);
  row.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = field.value.trim();
    if (!event.isTrusted || !text) return;
    model.send({ said: text });
    field.value = "";
  });

  // Keys typed here are not for the notebook. At the window, since Notebook 7 takes some before they reach the field.
  function onKey(event) {
    if (row.contains(event.target)) event.stopPropagation();
  }
  window.addEventListener("keydown", onKey, true);
  el.append(row);
  return () => window.removeEventListener("keydown", onKey, true);
}

export default { render };
