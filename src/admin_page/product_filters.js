// The form with the filters of the product list.

import { button, delayed, element, labelled, showErrors } from "./dom.js";
import { NamesField } from "./names.js";
import { text } from "./text.js";

const TYPING_PAUSE = 250;

export class ProductFilters {
  // `onChange(query, isTyping)`: the filters as parameters of the list. `isTyping`: the user has not left the field
  // since the last change.
  constructor(onChange) {
    this.onChange = onChange;
    this.isTyping = false;
    this.inputs = {
      search: this.input("search", { id: "search", "aria-keyshortcuts": "/" }),
      price_min: this.input("text", { inputmode: "decimal" }),
      price_max: this.input("text", { inputmode: "decimal" }),
      created_after: this.input("date"),
      created_before: this.input("date"),
    };
    this.names = {
      category: new NamesField("category", () => this.apply()),
      tag: new NamesField("tag", () => this.apply()),
    };
    this.applyTyped = delayed(TYPING_PAUSE, () => this.apply(), true);
    const { search, ...others } = this.inputs;
    const form = element(
      "form",
      {
        role: "search",
        class: "filters",
        onsubmit: (event) => {
          event.preventDefault();
          this.apply();
        },
        onfocusout: () => {
          this.isTyping = false;
        },
      },
      labelled(text("search"), search),
      this.names.category.labelled(text("category"), text("any_matches")),
      this.names.tag.labelled(text("tags"), text("all_match")),
      Object.entries(others).map(([name, input]) => labelled(text(name), input)),
      button(text("clear_filters"), () => {
        this.write(new URLSearchParams());
        this.apply();
      }),
    );
    const isOpen = matchMedia("(min-width: 60em)").matches;
    this.element = element("details", { open: isOpen }, element("summary", {}, text("filters")), form);
  }

  input(type, properties) {
    const typed = () => this.applyTyped();
    return element("input", { type, ...properties, oninput: typed });
  }

  apply() {
    this.applyTyped.cancel();
    this.onChange(this.read(), this.isTyping);
    this.isTyping = Boolean(document.activeElement.closest(".filters input"));
  }

  read() {
    const query = new URLSearchParams();
    for (const [name, input] of Object.entries(this.inputs)) {
      if (input.value.trim()) {
        query.append(name, input.value.trim());
      }
    }
    for (const [name, field] of Object.entries(this.names)) {
      field.value.forEach((value) => query.append(name, value));
    }
    return query;
  }

  write(query) {
    for (const [name, input] of Object.entries(this.inputs)) {
      const value = query.get(name) ?? "";
      // spaces at the end of what is being typed stay
      if (input.value.trim() !== value) {
        input.value = value;
      }
    }
    for (const [name, field] of Object.entries(this.names)) {
      field.value = query.getAll(name);
    }
  }

  // Shows errors of parameters, by name, beside their fields.
  showErrors(errors) {
    const fields = { ...this.inputs, category: this.names.category.input, tag: this.names.tag.input };
    for (const [name, input] of Object.entries(fields)) {
      showErrors(input, errors[name] ?? []);
    }
    if (Object.keys(errors).length) {
      this.element.open = true;
    }
  }
}
