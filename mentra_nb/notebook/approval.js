// The approval card. All text is set with textContent: arguments are written by a model.

const MIN_QUESTION_AGE = 300; // ms: an earlier click was meant for something else

function element(tag, name, text, attributes = {}) {
  const node = document.createElement(tag);
  if (name) node.className = `mentra-${name}`;
  if (text !== undefined) node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function field(label, input) {
  const row = element("label", "field");
  row.append(element("span", "label", label), input);
  return row;
}

function render({ model, el }) {
  const question = model.get("question");
  const born = performance.now();
  let sent = false;

  const card = element("div", "card", undefined, {
    role: "group",
    "aria-label": `${question.who} asks for permission: ${question.headline}`,
    "data-lm-suppress-shortcuts": "true",
  });
  const title = element("div", "title");
  title.append(element("strong", "headline", question.headline), element("span", "who", `${question.who} asks`));
  const left = element("span", "left");
  title.append(left);

  // Focusable, so that a long text can be scrolled by keyboard.
  const args = element("pre", "arguments", question.arguments, {
    tabindex: "0",
    role: "region",
    "aria-label": `Arguments of ${question.tool}`,
  });
  const effect = element("div", "effect", question.effect);
  effect.hidden = !question.effect;
  const why = element("div", "why", question.why);
  const status = element("div", "status", "", { role: "status" });

  const reason = element("input", "input", undefined, { type: "text", placeholder: "optional; the model is told" });
  const pattern = element("input", "input", undefined, { type: "text", spellcheck: "false" });
  pattern.value = question.subject;
  const exact = pattern.value; // untouched it means this very subject, whatever a one-line field made of it
  const scope = element("select", "input");
  for (const name of question.scopes) scope.append(element("option", "", name, { value: name }));

  const buttons = element("div", "buttons");
  const always = element("div", "always");
  always.hidden = true;

  function send(event, answer) {
    if (sent || !event.isTrusted || performance.now() - born < MIN_QUESTION_AGE) return;
    sent = true;
    for (const control of card.querySelectorAll("button, input, select")) control.disabled = true;
    status.textContent = "Sent.";
    setTimeout(() => {
      if (card.isConnected && sent) status.textContent = "No answer from the kernel. If it was restarted: %mentra resume";
    }, 2000);
    model.send(answer()); // may throw once the kernel is gone
  }

  function button(name, label, act) {
    const node = element("button", name, label, { type: "button" });
    node.addEventListener("click", act);
    return node;
  }

  const opener = button("open-always", "Always…", (event) => {
    if (!event.isTrusted) return;
    always.hidden = !always.hidden;
    opener.setAttribute("aria-expanded", String(!always.hidden));
    if (!always.hidden) pattern.focus();
  });
  opener.setAttribute("aria-expanded", "false");

  buttons.append(
    button("allow", "Allow once", (event) => send(event, () => ({ answer: "allow" }))),
    opener,
    button("deny", "Deny", (event) => send(event, () => ({ answer: "deny", reason: reason.value }))),
    button("stop", "Stop", (event) => send(event, () => ({ answer: "stop" }))),
  );
  const remember = button("remember", `Always allow ${question.tool} for this`, (event) => {
    if (pattern.value.trim()) {
      const edited = pattern.value === exact ? null : pattern.value;
      send(event, () => ({ answer: "always", pattern: edited, scope: scope.value }));
    } else {
      status.textContent = "Write a pattern first: * stands for any text, ? for one character.";
    }
  });
  always.append(field("Pattern (* any text, ? one character)", pattern), field("For this", scope), remember);

  // The reason comes before the buttons, so the first control a keyboard reaches is harmless.
  card.append(title, args, effect, why, field("Reason if you deny", reason), buttons, always, status);
  // Keys typed here are not for the notebook.
  card.addEventListener("keydown", (event) => event.stopPropagation());
  el.append(card);

  let until = null;
  function tick() {
    if (until === null) return;
    const seconds = Math.max(0, Math.round((until - performance.now()) / 1000));
    const minutes = Math.floor(seconds / 60);
    left.textContent = `${minutes}:${String(seconds % 60).padStart(2, "0")} left`;
  }
  const timer = setInterval(tick, 1000);

  function onMessage(message) {
    if (message.left !== undefined) {
      until = performance.now() + 1000 * message.left;
      tick();
    } else if (message.refused !== undefined) {
      sent = false;
      for (const control of card.querySelectorAll("button, input, select")) control.disabled = false;
      status.textContent = message.refused;
    }
  }
  model.on("msg:custom", onMessage);
  model.send({ ready: true });

  return () => {
    clearInterval(timer);
    model.off("msg:custom", onMessage);
  };
}

export default { render };
