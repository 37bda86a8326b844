// The lists of categories and tags.

import { announce, ask, button, delayed, element, labelled, openDialog, showErrors } from "./dom.js";
import { PATHS, loadNames, matching } from "./names.js";
import { navigate } from "./navigation.js";
import { account, idempotencyKey, request } from "./session.js";
import { describeError, formatCount, text } from "./text.js";
import { VirtualTable } from "./virtual_table.js";

const TITLES = { category: "categories", tag: "tags" };

export class NamesView {
  // `kind`: `category` or `tag`.
  constructor(kind) {
    this.kind = kind;
    this.all = [];
    const show = () => this.showRows();
    this.filter = element("input", { type: "search", id: "search", "aria-keyshortcuts": "/", oninput: show });
    this.status = element("p", { class: "status", role: "status" });
    this.table = new VirtualTable({
      label: text(TITLES[kind]),
      columns: [
        { key: "name", title: text("name") },
        { key: "actions", title: element("span", { class: "hidden" }, text("edit")) },
      ],
      keyOf: (row) => row.id,
      cellsOf: (row) => this.cellsOf(row),
    });
    const add = account.is_staff && button(text(`add_${kind}`), () => this.edit(null), { class: "main", id: "add" });
    const bar = element("div", { class: "bar" }, add, labelled(text("filter"), this.filter), this.status);
    this.element = element("section", { class: "names-view" }, bar, this.table.element);
    this.loadSoon = delayed(500, () => this.load());
  }

  show() {
    return this.load();
  }

  close() {
    this.loadSoon.cancel();
  }

  // a change of a category or tag is an event without products
  onChanges() {
    this.loadSoon();
  }

  onGap() {
    this.loadSoon();
  }

  async load() {
    try {
      this.all = await loadNames(this.kind);
    } catch (error) {
      const retry = button(text("load_again"), () => this.load());
      this.status.replaceChildren(describeError(error), " ", retry);
      return;
    }
    this.showRows();
    this.table.refreshAll();
  }

  showRows() {
    const rows = matching(this.all, this.filter.value);
    this.table.setRows(rows, true);
    const count = formatCount(rows.length);
    this.status.textContent = rows.length ? text("rows_loaded", { count }) : text("nothing_found");
  }

  cellsOf(row) {
    const name = button(element("bdi", {}, row.name), () => this.showProducts(row), {
      title: text("show_products"),
      "data-action": "show",
    });
    const actions = account.is_staff && [
      button(text("rename"), () => this.edit(row), {
        "data-action": "edit",
        "aria-label": `${text("rename")}: ${row.name}`,
      }),
      button(text("delete"), () => this.remove(row), {
        class: "danger",
        "data-action": "delete",
        "aria-label": `${text("delete")}: ${row.name}`,
      }),
    ];
    return { cells: [name, actions || []] };
  }

  showProducts(row) {
    navigate(new URLSearchParams({ [this.kind]: row.name }));
    document.querySelector(".table").focus();
  }

  // Reads a row with its entity tag.
  async read(id) {
    const response = await request("GET", `${PATHS[this.kind]}${id}/`);
    return { row: await response.json(), etag: response.headers.get("ETag") };
  }

  // Opens the dialog that renames a row, or adds one.
  async edit(row) {
    const stored = row && (await this.attempt(() => this.read(row.id)));
    if (row && !stored) {
      return;
    }
    let etag = stored?.etag;
    const key = idempotencyKey();
    const input = element("input", { required: true, value: stored?.row.name ?? "", autocomplete: "off" });
    const note = element("p", { role: "alert", class: "conflict" });
    const save = async (event) => {
      event.preventDefault();
      showErrors(input, []);
      try {
        const json = { name: input.value };
        const response = row
          ? await request("PATCH", `${PATHS[this.kind]}${row.id}/`, { json, headers: { "If-Match": etag } })
          : await request("POST", PATHS[this.kind], { json, headers: key });
        const { name } = await response.json();
        dialog.close();
        announce(text("saved", { name }));
        this.load();
      } catch (error) {
        if (error.status === 400 && error.body?.name) {
          showErrors(input, error.body.name);
          input.focus();
        } else if (error.status === 412) {
          const theirs = await this.attempt(() => this.read(row.id));
          etag = theirs?.etag ?? etag;
          note.replaceChildren(`${text("changed_by_other")}: `, element("bdi", {}, theirs?.row.name ?? ""));
        } else {
          announce(describeError(error), true);
        }
      }
    };
    const buttons = [element("button", { class: "main" }, text("save")), button(text("cancel"), () => dialog.close())];
    const content = [note, labelled(text("name"), input), element("div", { class: "buttons" }, buttons)];
    const form = element("form", { novalidate: true, onsubmit: save }, content);
    const dialog = openDialog(row ? text("rename") : text(`add_${this.kind}`), form);
    dialog.addEventListener("close", () => (row ? this.table.focus(row.id) : document.getElementById("add")?.focus()));
    input.select();
  }

  async remove(row) {
    const stored = await this.attempt(() => this.read(row.id));
    const { name } = stored?.row ?? row;
    const answers = [[true, text("delete")], [false, text("cancel")]];
    const isSure = stored && (await ask(text("delete_question", { name }), null, answers));
    // the row may have been built again meanwhile
    this.table.focus(row.id, "delete");
    if (!isSure) {
      return;
    }
    try {
      await request("DELETE", `${PATHS[this.kind]}${row.id}/`, { headers: { "If-Match": stored.etag } });
      announce(text("deleted", { name }));
    } catch (error) {
      if (error.status === 409) {
        const details = [element("p", { lang: "en" }, error.message), element("p", {}, text("in_use"))];
        const shows = await ask(name, details, [[true, text("show_products")], [false, text("close")]]);
        if (shows) {
          this.showProducts(stored.row);
          return;
        }
      } else {
        announce(error.status === 412 ? text("changed_by_other") : describeError(error), true);
      }
    }
    this.load();
  }

  // Returns what `action` returns, or `null` after showing its error.
  async attempt(action) {
    try {
      return await action();
    } catch (error) {
      announce(describeError(error), true);
      this.loadSoon();
      return null;
    }
  }
}
