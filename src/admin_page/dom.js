// Creates elements. Texts become text nodes, so nothing that a user typed is ever parsed as markup.

import { text } from "./text.js";

// Returns an element. Properties: `onclick` and the like are listeners, `class` and all others are attributes; an
// attribute whose value is `true` is empty, one that is `false`, `null` or `undefined` is left out.
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") {
      node.addEventListener(name.slice(2), value);
    } else if (value === true) {
      node.setAttribute(name, "");
    } else if (value !== false && value != null) {
      node.setAttribute(name, value);
    }
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

let lastId = 0;

// Returns an id that no other element has.
export function uniqueId() {
  return `e${++lastId}`;
}

export function button(label, onclick, properties = {}) {
  return element("button", { type: "button", onclick, ...properties }, label);
}

// Returns an element with a label, its field, an optional hint, and the errors that `showErrors` shows.
export function labelled(label, field, hint) {
  field.id ||= uniqueId();
  const errors = element("span", { id: uniqueId(), class: "error" });
  const note = hint && element("span", { id: uniqueId(), class: "hint" }, hint);
  field.setAttribute("aria-describedby", [note?.id, errors.id].filter(Boolean).join(" "));
  return element("div", { class: "field" }, element("label", { for: field.id }, label), field, note, errors);
}

// Shows the errors (a list of texts) of a field that `labelled` has wrapped. An empty list removes them.
export function showErrors(field, messages) {
  const place = field.closest(".field").querySelector(".error");
  place.replaceChildren(...messages.map((message) => element("span", { lang: "en" }, message)));
  field.ariaInvalid = messages.length ? "true" : null;
}

// Returns a function that calls `action` after a delay. Further calls during the delay have no effect, or restart it
// if `restarts`.
export function delayed(milliseconds, action, restarts) {
  let timer;
  const cancel = () => {
    clearTimeout(timer);
    timer = null;
  };
  const end = () => {
    cancel();
    action();
  };
  const call = () => {
    if (restarts) {
      cancel();
    }
    timer ??= setTimeout(end, milliseconds);
  };
  return Object.assign(call, { cancel });
}

// Shows a short text that screen readers announce, and removes it after a while.
export function announce(message, isError = false) {
  const note = element("p", { class: isError ? "error" : null }, message);
  const close = () => note.remove();
  note.append(" ", button("×", close, { "aria-label": text("close") }));
  // what is outside of a modal dialog cannot be reached
  const place = [...document.querySelectorAll("[open] > .messages")].at(-1) ?? document.getElementById("messages");
  place.append(note);
  while (place.childElementCount > 4) {
    place.firstElementChild.remove();
  }
  setTimeout(close, isError ? 20000 : 6000);
}

// Opens a modal dialog with this title. It is removed when it closes.
export function openDialog(title, content, properties = {}) {
  const heading = element("h2", { id: uniqueId() }, title);
  const messages = element("div", { class: "messages", role: "status" });
  const dialog = element("dialog", { "aria-labelledby": heading.id, ...properties }, heading, content, messages);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

// Asks a question. Returns the value of the chosen answer (`[[value, label], ...]`), or `undefined` after Escape.
export function ask(title, details, answers) {
  return new Promise((resolve) => {
    let chosen;
    const choose = (value) => () => {
      chosen = value;
      dialog.close();
    };
    const buttons = answers.map(([value, label], index) =>
      button(label, choose(value), { class: index ? null : "main" }),
    );
    const content = [element("div", {}, details), element("div", { class: "buttons" }, buttons)];
    const dialog = openDialog(title, element("div", {}, content), { class: "question", role: "alertdialog" });
    dialog.addEventListener("close", () => resolve(chosen));
    // the last answer changes nothing
    buttons.at(-1).focus();
  });
}

// Lets the browser save bytes as a file.
export function saveFile(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
