// The approval card. All text is set with textContent: arguments are written by a model.

const MIN_QUESTION_AGE = 300; // ms: an earlier click was meant for something else
const ANSWER_TIMEOUT = 2000; // ms
const BEAT = 1500; // ms between two signs of life of the kernel that an open card asks for
const SHOWN_DIFF = 40; // lines of a diff that are not folded
const LONG_TEXT = 18; // lines of a text that is shown whole
const GONE = "The kernel that asked is gone: ";
const SILENT = "No answer from the kernel. If it was restarted: ";

function element(tag, name, text, attributes = {}) {
  const node = document.createElement(tag);
  if (name) node.className = name.split(" ").map((part) => `mentra-${part}`).join(" ");
  if (text !== undefined) node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function field(label, input) {
  const row = element("label", "field");
  row.append(element("span", "label", label), input);
  return row;
}

// The control for a value that is asked for.
function formInput(each) {
  if (each.kind === "choice" || each.kind === "choices") {
    const input = element("select", "input");
    if (each.kind === "choices") input.multiple = true;
    else input.append(element("option", "", "", { value: "" }));
    for (const [value, label] of each.choices) input.append(element("option", "", label, { value }));
    const chosen = Array.isArray(each.default) ? each.default : [each.default];
    for (const option of input.options) option.selected = chosen.includes(option.value);
    return input;
  }
  const input = element("input", "input", undefined, { type: each.kind === "boolean" ? "checkbox" : "text" });
  if (each.kind === "boolean") input.checked = each.default === true;
  else if (each.default !== null) input.value = String(each.default);
  return input;
}

function formValue(each, input) {
  if (each.kind === "boolean") return input.checked;
  if (each.kind === "choices") return [...input.selectedOptions].map((option) => option.value);
  return input.value;
}

function formField(each, input) {
  const row = field(each.title, input);
  if (each.about) row.append(element("span", "about", each.about));
  return row;
}

const KINDS = { "+": "added", "-": "removed", "@": "place" };

function diffLines(lines) {
  return lines.map((line) => element("div", KINDS[line[0]] || "kept", line || " "));
}

// A diff, of which all but the beginning is folded.
function diff(lines, label) {
  const box = element("div", "diff", undefined, { tabindex: "0", role: "region", "aria-label": label });
  box.append(...diffLines(lines.slice(0, SHOWN_DIFF)));
  if (lines.length > SHOWN_DIFF) {
    const more = element("details");
    const rest = lines.length - SHOWN_DIFF;
    more.append(element("summary", "", `${rest} more line${rest === 1 ? "" : "s"}`), ...diffLines(lines.slice(SHOWN_DIFF)));
    box.append(more);
  }
  return box;
}

// Code in the colours of the page's editors. Each piece is text, whatever is in it.
function codeBox(pieces) {
  const box = element("pre", "arguments code", undefined, { tabindex: "0", role: "region", "aria-label": "The code" });
  for (const [colour, text] of pieces) {
    const piece = element("span", "", text);
    if (colour) piece.style.color = colour;
    box.append(piece);
  }
  return box;
}

function render({ model, el }) {
  const question = model.get("question");
  const born = performance.now();
  let sent = false;
  let waiting = null; // the timer of what the kernel must answer
  let leaves = false; // whether the keyboard is to go on from the cell once the card is gone
  let cell = null;

  const card = element("div", "card", undefined, {
    role: "group",
    "aria-label": `${question.who} asks for permission: ${question.headline}`,
    "data-lm-suppress-shortcuts": "true",
  });
  const list = element("div", "list", undefined, { role: "group", "aria-label": "Open questions" });
  function drawList() {
    const listed = model.get("listed");
    const rows = listed.rows || [];
    const all = listed.alike || [];
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
    const nodes = rows.map((row, n) => {
      const node = button("row", `${n + 1}  ${row.text}${all.length > 1 && all.includes(row.id) ? "  (alike)" : ""}`, (event) => {
        if (event.isTrusted) choose(n);
      });
      node.dataset.id = row.id;
      if (row.shown) node.setAttribute("aria-current", "true");
      return node;
    });
    if (listed.more) nodes.push(element("div", "about", `and ${listed.more} more`));
    if (all.length > 1) {
      const ids = () => ({ answer: "all", ids: all, reason: reason.value });
      nodes.push(button("all", `Allow all ${all.length} alike`, (event) => send(event, ids)));
    }
    list.replaceChildren(...nodes);
    list.hidden = nodes.length === 0;
    if (focused !== null) {
      const again = nodes.find((node) => node.dataset.id === focused) || list.querySelector("[aria-current]");
      again?.focus({ preventScroll: true });
    }
  }
  function choose(n) {
    const row = (model.get("listed").rows || [])[n];
    if (row && !row.shown && !sent) model.send({ pick: row.id });
  }

  const title = element("div", "title");
  const asks = `${question.who} asks`;
  title.append(element("strong", "headline", question.headline));
  if (question.headline !== asks) title.append(element("span", "who", asks));
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
  if (question.effect.split("\n").length > LONG_TEXT || question.effect.length > 100 * LONG_TEXT) {
    effect.classList.add("mentra-long"); // scrolls, so that the buttons stay in sight
    for (const [key, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", "The whole text"]]) effect.setAttribute(key, value);
  }
  let whole = [args];
  const words = question.words;
  if (question.diff.length) {
    // In sight where it is a short command that was tried: its diff does not say what it was. A text in a longer one, such
    // as a here-document, would be shown twice.
    let call = args;
    if (!words.tried || question.folded) {
      call = element("details");
      call.append(element("summary", "", question.folded || "The whole call"), args);
    }
    whole = [diff(question.diff, words.diff), call];
  }
  if (question.code.length) whole = [codeBox(question.code)];
  if (!question.arguments) whole = []; // a question of the tool itself
  const why = element("div", "why", question.why);
  const advice = element("div", "why", "", { role: "status" });
  const drawAdvice = () => {
    advice.textContent = model.get("advice") || "";
    advice.hidden = !advice.textContent;
  };
  const status = element("div", "status", "", { role: "status" });
  // Said to screen readers only, and once the region is there: then it is read without taking the focus.
  const announced = element("div", "announced", "", { role: "status", "aria-live": "polite" });
  setTimeout(() => {
    announced.textContent = `${question.who} asks for permission: ${question.headline}`;
  }, 100);

  const edits = question.editable.map(([name, text]) => {
    const input = element("textarea", "input", undefined, { spellcheck: "false", rows: Math.min(12, text.split("\n").length) });
    input.value = text;
    const before = input.value; // as the field holds it
    return { name, input, isChanged: () => input.value !== before, reset: () => { input.value = before; } };
  });
  const changed = () => edits.filter((each) => each.isChanged());
  const changes = element("div", "changes");
  changes.hidden = true;
  changes.append(...edits.map((each) => field(each.name, each.input)));

  const form = question.fields.map((each) => [each, formInput(each)]);
  const values = () =>
    Object.fromEntries(form.map(([each, input]) => [each.name, formValue(each, input)]));

  const reason = element("input", "input", undefined, { type: "text", placeholder: "optional; the model reads it" });
  // Several lines, so that a long pattern is seen whole.
  const pattern = element("textarea", "input pattern", undefined, { spellcheck: "false", rows: "1" });
  pattern.value = question.subject;
  const exact = pattern.value; // as the field holds it; untouched it means this very subject
  function fit() {
    if (CSS.supports("field-sizing", "content")) return; // the style does it
    pattern.style.height = "auto";
    pattern.style.height = `${Math.min(pattern.scrollHeight + 2, 180)}px`;
  }
  const folders = element("input", "input", undefined, { type: "text", spellcheck: "false" });
  folders.value = question.folders;
  const scope = element("select", "input");
  for (const [name, label] of question.scopes) scope.append(element("option", "", label, { value: name }));

  const offers = element("fieldset", "offers");
  offers.hidden = true;

  // The pattern that is written is the one that is chosen.
  function drawChoice() {
    for (const input of offers.querySelectorAll("input")) input.checked = input.value === pattern.value;
  }
  pattern.addEventListener("input", () => {
    fit();
    drawChoice();
    status.textContent = "";
  });

  // Patterns to choose from, the first of which covers this very call.
  function propose(patterns) {
    const name = `mentra-pattern-${Math.random()}`;
    const rows = patterns.map((each, n) => {
      const value = n === 0 && exact ? exact : each.pattern;
      const input = element("input", "", undefined, { type: "radio", name, value });
      input.addEventListener("change", () => {
        pattern.value = value;
        fit();
      });
      const row = element("label", "offer");
      row.append(input, element("code", "", each.pattern));
      if (each.broad) row.append(element("strong", "broad", `broad: ${each.broad}`));
      if (each.covered) row.append(element("span", "about", each.covered));
      return row;
    });
    offers.replaceChildren(element("legend", "label", "Covers this call, from narrow to wide"), ...rows);
    offers.hidden = rows.length === 0;
    drawChoice();
    fit();
    remember.scrollIntoView({ block: "nearest" });
  }

  const buttons = element("div", "buttons");
  const always = element("div", "always");
  always.hidden = true;

  function enable(on) {
    for (const control of card.querySelectorAll("button, input, select, textarea")) control.disabled = !on;
  }

  // Send a message that the kernel answers. If it does not, say so.
  function ask(content, silence) {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      waiting = null;
      silence();
    }, ANSWER_TIMEOUT);
    try {
      model.send(content);
    } catch {
      // the kernel is gone: there will be no answer
    }
  }

  // An answer that comes after all makes it usable again.
  function gone(words) {
    enable(false);
    left.textContent = "";
    until = null;
    card.classList.add("mentra-gone");
    status.textContent = words + question.resume;
  }

  function check() {
    ask({ ready: true }, () => gone(SILENT));
  }

  function send(event, answer) {
    if (sent || !event.isTrusted || performance.now() - born < MIN_QUESTION_AGE) return;
    sent = true;
    cell = card.closest(".jp-Cell");
    leaves = card.contains(document.activeElement);
    enable(false);
    status.textContent = "Sent.";
    ask(answer(), () => {
      status.textContent = SILENT + question.resume;
    });
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
    if (!always.hidden) {
      fit();
      pattern.focus();
      pattern.setSelectionRange(0, 0);
      remember.scrollIntoView({ block: "nearest" });
    }
    if (!always.hidden && offers.hidden) model.send({ proposals: true });
  });
  opener.setAttribute("aria-expanded", "false");

  const editor = button("open-changes", "Change…", (event) => {
    if (!event.isTrusted) return;
    changes.hidden = !changes.hidden;
    editor.setAttribute("aria-expanded", String(!changes.hidden));
    if (changes.hidden) edits.forEach((each) => each.reset());
    else edits[0].input.focus();
    name();
  });
  editor.setAttribute("aria-expanded", "false");

  // The buttons say what they would do.
  function name() {
    const isChanged = changed().length > 0;
    allowing.textContent = isChanged ? "Allow as changed" : words.allow;
    denying.textContent = reason.value.trim() && !question.fields.length ? `${words.deny} and say` : words.deny;
    opener.disabled = isChanged; // such an answer holds once
    if (isChanged) always.hidden = true;
  }
  reason.addEventListener("input", name);
  for (const each of edits) each.input.addEventListener("input", name);

  const allowOnce = () => {
    const edited = Object.fromEntries(changed().map((each) => [each.name, each.input.value]));
    const more = changed().length ? { arguments: edited } : question.fields.length ? { values: values() } : {};
    return { answer: "allow", reason: reason.value, ...more };
  };

  const deny = (event) => send(event, () => ({ answer: "deny", reason: reason.value }));
  const allowAlways = (event) => {
    if (pattern.value.trim()) {
      const edited = pattern.value === exact ? null : pattern.value;
      const where = question.folders ? { folders: folders.value } : {};
      send(event, () => ({ answer: "always", pattern: edited, scope: scope.value, reason: reason.value, ...where }));
    } else {
      status.textContent = "Write a pattern first: * stands for any text, ? for one character.";
    }
  };
  const allowing = button("allow", words.allow, (event) => send(event, allowOnce));
  const denying = button("deny", words.deny, deny);
  buttons.append(
    allowing,
    ...(words.always ? [opener] : []),
    ...(edits.length ? [editor] : []),
    denying,
    ...(question.can_stop ? [button("stop", "Stop", (event) => send(event, () => ({ answer: "stop" })))] : []),
  );
  const remembers = question.folders ? "Always keep this" : `Always allow ${question.tool} for this`;
  const remember = button("remember", remembers, allowAlways);
  always.append(offers, field("Pattern (* any text, ? one character)", pattern));
  if (question.folders) always.append(field("Inside these folders", folders));
  always.append(field("For", scope), remember);

  // The reason comes before the buttons, so the first control a keyboard reaches is harmless.
  card.append(list, title, effect, ...whole, changes, why, advice, ...form.map(([each, input]) => formField(each, input)), field(words.reason, reason), buttons, always, status);
  card.append(announced);
  drawList();
  model.on("change:listed", drawList);
  drawAdvice();
  model.on("change:advice", drawAdvice);
  if (model.get("listed").focus) setTimeout(() => list.querySelector("[aria-current]")?.focus({ preventScroll: true }), 0);

  // Keys typed here are not for the notebook.
  // At the window, since Notebook 7 takes keys of a list or a button before they reach the card.
  function onKey(event) {
    if (!card.contains(event.target)) return;
    event.stopPropagation();
    if (event.isComposing) return;
    if (event.key === "Escape") focusCell(card.closest(".jp-Cell"));
    if (/^[1-9]$/.test(event.key) && !event.target.matches("input, select, textarea")) choose(Number(event.key) - 1);
    if (event.key === "Enter" && event.target === reason) deny(event);
    if (event.key === "Enter" && (event.target === pattern || event.target === folders)) {
      event.preventDefault();
      allowAlways(event);
    }
  }
  window.addEventListener("keydown", onKey, true);
  el.append(card);

  let until = null;
  function tick() {
    if (until === null) return;
    const seconds = Math.max(0, Math.round((until - performance.now()) / 1000));
    const minutes = Math.floor(seconds / 60);
    left.textContent = `${minutes}:${String(seconds % 60).padStart(2, "0")} left`;
  }
  const timer = setInterval(tick, 1000);
  // A kernel that died is started anew without a word to its widgets, so only its silence tells.
  const beat = setInterval(() => {
    if (!sent && waiting === null && isLive()) check();
  }, BEAT);

  function onMessage(message) {
    clearTimeout(waiting);
    waiting = null;
    if (message.proposals !== undefined) propose(message.proposals);
    else if (message.left !== undefined) {
      if (until === null && !sent) {
        status.textContent = "";
        card.classList.remove("mentra-gone");
        enable(true);
      }
      until = performance.now() + 1000 * message.left;
      tick();
    } else if (message.refused !== undefined) {
      sent = leaves = false;
      enable(true);
      name();
      status.textContent = message.refused;
    }
  }

  // Called when the front end has lost the connection of the widget, such as by a restart, or has found it again.
  function onConnection() {
    setTimeout(() => (isLive() ? ask({ ready: true }, () => gone(GONE)) : gone(GONE)), 0); // by then the node is marked
  }

  // The front end marks the node of a widget without a connection; the model that is given here does not say it.
  function isLive() {
    return model.comm_live !== false && el.closest(".jupyter-widgets-disconnected") === null;
  }

  model.on("msg:custom", onMessage);
  model.on("comm_live_update", onConnection);
  if (isLive()) check();
  else gone(GONE);

  return () => {
    window.removeEventListener("keydown", onKey, true);
    clearInterval(timer);
    clearInterval(beat);
    clearTimeout(waiting);
    model.off("msg:custom", onMessage);
    model.off("change:listed", drawList);
    model.off("change:advice", drawAdvice);
    model.off("comm_live_update", onConnection);
    if (leaves && (document.activeElement === null || document.activeElement === document.body)) focusCell(cell);
  };
}

function focusCell(cell) {
  if (!cell) {
    document.activeElement?.blur();
    return;
  }
  if (!cell.hasAttribute("tabindex")) cell.setAttribute("tabindex", "-1");
  cell.focus({ preventScroll: true });
}

export default { render };
