// The form that creates, edits and deletes a product. A product that somebody else has changed meanwhile is never
// overwritten unnoticed: the user sees both versions and chooses.

import { announce, ask, button, element, labelled, openDialog, showErrors } from "./dom.js";
import { NamesField, suggest } from "./names.js";
import { account, idempotencyKey, request } from "./session.js";
import { describeError, formatMoment, text } from "./text.js";

const FIELDS = ["name", "category_name", "price", "tags", "description"];
// characters of a value that a comparison of versions shows
const MAX_EXCERPT = 300;
// of them before the first difference
const LEAD = 40;

// Prices may be typed with a decimal comma and with spaces: `1 299,90`. What could be read in two ways stays as it is.
function normalizePrice(typed) {
  const compact = typed.trim().replace(/[\s\u00a0\u202f]/g, "");
  return /^\d+,\d{1,2}$/.test(compact) ? compact.replace(",", ".") : compact;
}

// The value of a field in the form in which it is compared.
function comparable(name, fields) {
  switch (name) {
    case "price":
      return Number(fields.price || NaN);
    case "tags":
      return [...fields.tags].sort();
    default:
      // a text area has its own line ends, and the server removes outer spaces
      return fields[name].replace(/\r\n?/g, "\n").trim();
  }
}

const differs = (name, a, b) => JSON.stringify(comparable(name, a)) !== JSON.stringify(comparable(name, b));
// Two values as texts, from shortly before their first difference.
function excerpts(...values) {
  const [a, b] = values.map((value) => [...(Array.isArray(value) ? value.join(", ") : value)]);
  const difference = a.findIndex((character, index) => character !== b[index]);
  const start = Math.max(0, (difference < 0 ? a.length : difference) - LEAD);
  return [a, b].map((characters) => {
    const part = characters.slice(start, start + MAX_EXCERPT).join("");
    return element("bdi", { class: "excerpt", tabindex: "0" }, start ? `… ${part}` : part);
  });
}

// A row of the table that compares two versions.
function comparison(name, ...contents) {
  const cells = contents.map((content) => element("td", {}, content));
  return element("tr", {}, element("th", { scope: "row" }, text(name)), cells);
}

// Texts of errors, which may be keyed by the position in a list: `{"1": ["..."]}`.
const flatten = (errors) => (Array.isArray(errors) ? errors : Object.values(errors).flat());

// Reads a product: its fields as the form has them, and its entity tag.
async function load(path) {
  const response = await request("GET", path);
  const product = await response.json();
  return { product, fields: fieldsOf(product), etag: response.headers.get("ETag") };
}

function fieldsOf(product) {
  const fields = Object.fromEntries(FIELDS.map((name) => [name, product[name]]));
  return { ...fields, price: product.price.toFixed(2) };
}

const EMPTY = { name: "", category_name: "", price: "", tags: [], description: "" };

// Opens the form: for the product with this id, or for a `new` one. Returns `null` if `isWanted()` is false when the
// product is loaded. Calls `onClose(product)` when it closes: with the saved product, `null` for a deleted one,
// `undefined` if nothing was saved.
export async function openProductForm(id, isWanted, onClose) {
  const path = id === "new" ? null : `products/${encodeURIComponent(id)}/`;
  const stored = path ? await load(path) : { fields: EMPTY };
  return isWanted() ? new ProductForm(path, stored, onClose) : null;
}

class ProductForm {
  constructor(path, stored, onClose) {
    Object.assign(this, { path, stored, result: undefined, key: idempotencyKey() });
    this.inputs = {
      name: element("input", { required: true }),
      category_name: element("input", { required: true }),
      price: element("input", { inputmode: "decimal", required: true, autocomplete: "off" }),
      tags: new NamesField("tag"),
      description: element("textarea", { rows: 8 }),
    };
    const fields = FIELDS.map((name) => this.labelled(name));
    suggest(this.inputs.category_name, "category");
    this.conflict = element("section", { class: "conflict", role: "alert" });
    // below the buttons, so that nothing moves while the user types
    this.note = element("p", { class: "conflict", role: "alert" });
    this.save = element("button", { class: "main" }, text("save"));
    const close = button(path ? text("close") : text("cancel"), () => this.requestClose());
    const remove = path && button(text("delete"), () => this.remove(), { class: "danger" });
    const created = path && `${text("created_at")}: ${formatMoment(stored.product.created_at)} UTC`;
    const moment = path && element("p", { class: "hint" }, created);
    const controls = account.is_staff ? [this.save, close, remove] : [close];
    const buttons = element("div", { class: "buttons" }, controls);
    FIELDS.forEach((name) => {
      this.elementOf(name).readOnly = !account.is_staff;
    });
    this.form = element(
      "form",
      {
        class: account.is_staff ? null : "read-only",
        novalidate: true,
        onsubmit: (event) => this.submit(event),
      },
      [this.conflict, fields, moment, buttons, this.note],
    );
    this.show(stored.fields);
    const title = path ? text("edit_product", { id: stored.product.id }) : text("add_product");
    this.dialog = openDialog(title, this.form, { class: "product" });
    this.dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.requestClose();
    });
    // Chromium closes a dialog at the second Escape, even if `cancel` is prevented
    this.dialog.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.preventDefault();
        this.requestClose();
      }
    });
    this.dialog.addEventListener("close", () => onClose(this.result));
    this.inputs.name.focus();
  }

  labelled(name) {
    const [label, field] = [text(name), this.inputs[name]];
    return field instanceof NamesField ? field.labelled(label) : labelled(label, field);
  }

  // The element of a field that can have the focus.
  elementOf(name) {
    return this.inputs[name].input ?? this.inputs[name];
  }

  show(fields) {
    for (const name of FIELDS) {
      this.inputs[name].value = fields[name];
    }
  }

  read() {
    this.inputs.tags.addTyped();
    const fields = Object.fromEntries(FIELDS.map((name) => [name, this.inputs[name].value]));
    const price = normalizePrice(fields.price);
    return { ...fields, name: fields.name.trim(), category_name: fields.category_name.trim(), price };
  }

  // The fields that differ from the stored product.
  changes() {
    const fields = this.read();
    const changed = FIELDS.filter((name) => differs(name, fields, this.stored.fields));
    return Object.fromEntries(changed.map((name) => [name, fields[name]]));
  }

  async submit(event) {
    event.preventDefault();
    if (this.isBusy || !account.is_staff) {
      return;
    }
    const changes = this.path ? this.changes() : this.read();
    if (!Object.keys(changes).length) {
      this.dialog.close();
      return;
    }
    await this.exclusively(async () => {
      const response = this.path
        ? await request("PATCH", this.path, { json: changes, headers: { "If-Match": this.stored.etag } })
        : await request("POST", "products/", { json: changes, headers: this.key });
      this.result = await response.json();
      this.dialog.close();
      announce(text("saved", { name: this.result.name }));
    });
  }

  async remove() {
    const { name } = this.stored.fields;
    if (!(await ask(text("delete_question", { name }), null, [[true, text("delete")], [false, text("cancel")]]))) {
      return;
    }
    await this.exclusively(async () => {
      await request("DELETE", this.path, { headers: { "If-Match": this.stored.etag } });
      this.result = null;
      this.dialog.close();
      announce(text("deleted", { name }));
    });
  }

  // Runs one action at a time, and shows its errors.
  async exclusively(action) {
    if (this.isBusy) {
      return;
    }
    this.isBusy = true;
    this.form.ariaBusy = "true";
    this.showFieldErrors({});
    try {
      await action();
    } catch (error) {
      await this.handle(error);
    } finally {
      this.isBusy = false;
      this.form.ariaBusy = null;
    }
  }

  async handle(error) {
    if (error.status === 412) {
      await this.showConflict();
    } else if (error.status === 400 && !error.body?.detail) {
      this.showFieldErrors(error.body ?? {});
      announce(text("not_saved"), true);
      this.form.querySelector("[aria-invalid]")?.focus();
    } else {
      announce(describeError(error), true);
      // the next attempt is another request
      this.key = error.status === 422 ? idempotencyKey() : this.key;
    }
  }

  showFieldErrors(errors) {
    const { category_id: category = [], ...others } = errors;
    const all = { ...others, category_name: [...flatten(others.category_name ?? []), ...flatten(category)] };
    for (const name of FIELDS) {
      showErrors(this.elementOf(name), flatten(all[name] ?? []));
    }
  }

  // Loads the other version, and shows the fields that differ in both, each with a choice.
  async showConflict() {
    const mine = this.changes();
    let theirs;
    try {
      theirs = await load(this.path);
    } catch (error) {
      announce(describeError(error), true);
      return;
    }
    const before = this.stored.fields;
    this.stored = theirs;
    // what only they have changed is taken over
    this.show({ ...theirs.fields, ...mine });
    this.note.replaceChildren();
    const both = Object.keys(mine).filter((name) => differs(name, before, theirs.fields));
    const differing = both.filter((name) => differs(name, mine, theirs.fields));
    const taken = FIELDS.filter((name) => !(name in mine) && differs(name, before, theirs.fields));
    const rows = [
      ...differing.map((name) => this.choice(name, mine[name], theirs.fields[name])),
      ...taken.map((name) => comparison(name, ...excerpts(before[name], theirs.fields[name]))),
    ];
    const head = [text("field"), text("mine"), text("theirs")].map((title) => element("th", { scope: "col" }, title));
    this.conflict.replaceChildren(
      element("h3", {}, text("changed_by_other")),
      element("p", {}, text("choose_versions")),
      element("table", {}, element("thead", {}, element("tr", {}, head)), element("tbody", {}, rows)),
    );
    (this.conflict.querySelector("input") ?? this.save).focus();
  }

  // Says that the product differs from what the form has loaded, if it is among the changed or deleted ones.
  noteChanges(changed, deleted) {
    const id = this.stored.product?.id;
    const other = changed.find((product) => product.id === id);
    const isOther = other && FIELDS.some((name) => differs(name, fieldsOf(other), this.stored.fields));
    if (this.isBusy || !(isOther || deleted.includes(id))) {
      return;
    }
    const compare = button(text("show"), () => this.exclusively(() => this.showConflict()));
    this.note.replaceChildren(text("changed_by_other"), ". ", compare);
  }

  choice(name, mine, theirs) {
    const shown = excerpts(mine, theirs);
    const options = [mine, theirs].map((value, index) => {
      const use = () => {
        this.inputs[name].value = value;
      };
      const label = text(index ? "theirs" : "mine");
      const properties = { type: "radio", name: `keep-${name}`, checked: !index, onchange: use };
      return element("div", {}, element("label", {}, element("input", properties), " ", label), shown[index]);
    });
    return comparison(name, ...options);
  }

  get isDirty() {
    return account?.is_staff && Object.keys(this.changes()).length > 0;
  }

  // Closes the form, after a question if something would be lost. Returns whether it is closed.
  requestClose() {
    this.closing ??= this.close().finally(() => {
      this.closing = null;
    });
    return this.closing;
  }

  async close() {
    const answers = [[true, text("discard")], [false, text("continue_editing")]];
    const closes = !this.isBusy && (!this.isDirty || (await ask(text("discard_question"), null, answers)));
    if (closes) {
      this.dialog.close();
    }
    return closes;
  }
}
