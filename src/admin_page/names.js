// The names of categories and tags, and the fields in which users choose them.

import { button, element, labelled, uniqueId } from "./dom.js";
import { get } from "./session.js";
import { text } from "./text.js";

const SUGGESTIONS = 30;

// Paths of the API by kind.
export const PATHS = { category: "categories/", tag: "tags/" };

const loaded = { category: [], tag: [] };

// Loads the names of a kind (`category` or `tag`), as `[{id, name}]` in alphabetical order.
export async function loadNames(kind) {
  const rows = await get(PATHS[kind]);
  const { compare } = new Intl.Collator();
  loaded[kind] = rows.sort((a, b) => compare(a.name, b.name));
  return loaded[kind];
}

// Returns the rows whose name contains a text, without regard to case.
export function matching(rows, typed) {
  const part = typed.trim().toLowerCase();
  return rows.filter(({ name }) => name.toLowerCase().includes(part));
}

// Adds suggestions to an input: the names of this kind that contain its text.
export function suggest(input, kind) {
  const list = element("datalist", { id: uniqueId() });
  const update = () => {
    const rows = matching(loaded[kind], input.value).slice(0, SUGGESTIONS);
    list.replaceChildren(...rows.map(({ name }) => element("option", { value: name })));
  };
  input.setAttribute("list", list.id);
  input.setAttribute("autocomplete", "off");
  input.addEventListener("input", update);
  input.addEventListener("focus", update);
  input.after(list);
}

// A field for several names. Enter, a suggestion, or leaving the field adds what it contains.
export class NamesField {
  constructor(kind, onChange) {
    this.onChange = onChange;
    this.names = [];
    this.kind = kind;
    this.chosen = element("ul", { class: "names" });
    this.input = element("input");
    this.input.addEventListener("change", () => this.addTyped());
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.input.value.trim()) {
        event.preventDefault();
        this.addTyped();
      } else if (event.key === "Backspace" && !this.input.value && !this.input.readOnly && this.names.length) {
        this.value = this.names.slice(0, -1);
        this.onChange?.();
      }
    });
  }

  // Returns the field with its label.
  labelled(label, hint) {
    const field = labelled(label, this.input, hint);
    this.input.before(this.chosen);
    suggest(this.input, this.kind);
    return field;
  }

  get value() {
    return [...this.names];
  }

  set value(names) {
    this.names = [...new Set(names)];
    const items = this.names.map((name) => {
      const remove = () => {
        this.value = this.names.filter((other) => other !== name);
        this.input.focus();
        this.onChange?.();
      };
      const close = button("×", remove, { "aria-label": text("remove", { name }) });
      return element("li", {}, element("bdi", {}, name), close);
    });
    this.chosen.replaceChildren(...items);
  }

  addTyped() {
    const name = this.input.value.trim();
    this.input.value = "";
    if (name && !this.names.includes(name)) {
      this.value = [...this.names, name];
      this.onChange?.();
    }
  }
}
