// The list of products: filters, table, live changes and export.

import { announce, button, delayed, element, saveFile } from "./dom.js";
import { currentQuery, navigate } from "./navigation.js";
import { COLUMNS, PagedList } from "./paged_list.js";
import { ProductFilters } from "./product_filters.js";
import { openProductForm } from "./product_form.js";
import { account, get, request } from "./session.js";
import { describeError, formatCount, formatMoment, formatPrice, text } from "./text.js";
import { VirtualTable } from "./virtual_table.js";

// rows below the visible ones that are loaded in advance
const AHEAD = 150;
const MARK_DURATION = 8000;
// ids per request that asks which products match the filters
const MAX_ASKED = 100;

const SORTABLE = ["id", "name", "price", "created_at"];
// the parameters of the URL that select and order products
const SELECTION = [
  "search",
  "category",
  "tag",
  "price_min",
  "price_max",
  "created_after",
  "created_before",
  "ordering",
];

export class ProductsView {
  constructor() {
    this.list = null;
    this.query = null;
    // the timers that end the marks of changed rows, by id
    this.marks = new Map();
    this.deleted = new Set();
    // changed products that are not among the rows
    this.others = new Set();
    // changes that came while a page was loaded, which may be older
    this.waiting = [];
    this.filters = new ProductFilters((query, isTyping) => this.applyFilters(query, isTyping));
    this.table = new VirtualTable({
      label: text("products"),
      columns: COLUMNS.map((key) => ({ key, title: this.title(key) })),
      keyOf: (row) => row.id,
      cellsOf: (row) => this.cellsOf(row),
      onScroll: (first, last) => this.onScroll(first, last),
    });
    this.rememberPosition = delayed(300, () => this.savePosition());
    this.countOthers = delayed(1000, () => this.updateNotice());
    this.status = element("p", { class: "status", role: "status" });
    this.notice = element("p", { class: "notice", role: "status", hidden: true });
    const bar = element(
      "div",
      { class: "bar" },
      account.is_staff && button(text("add_product"), () => this.edit("new"), { class: "main", id: "add" }),
      ["xlsx", "csv"].map((format) => button(`${text("export")}: ${format.toUpperCase()}`, () => this.export(format))),
      this.notice,
      this.status,
    );
    this.element = element("section", { class: "products" }, this.filters.element, bar, this.table.element);
  }

  close() {
    this.list?.close();
    this.list = null;
    this.rememberPosition.cancel();
    this.countOthers.cancel();
    this.filters.applyTyped.cancel();
    this.clearMarks();
  }

  title(key) {
    const label = text(key);
    if (!SORTABLE.includes(key)) {
      return label;
    }
    const sort = () => {
      const current = this.ordering;
      navigate({ ordering: current === key ? `-${key}` : key, cursor: null });
    };
    return button(label, sort, { "data-sort": key });
  }

  get ordering() {
    return this.query.get("ordering") ?? "id";
  }

  // Puts the filters into the URL. What is typed into a field without leaving it is one step of the back button.
  applyFilters(filters, isTyping) {
    if (this.query.has("ordering")) {
      filters.append("ordering", this.ordering);
    }
    navigate(filters, { replaces: isTyping });
  }

  // Shows what the query of the URL says.
  show(query) {
    const selection = new URLSearchParams([...query].filter(([name]) => SELECTION.includes(name)));
    if (selection.toString() !== this.query?.toString()) {
      this.query = selection;
      this.filters.write(selection);
      this.showOrdering();
      this.reload(query.get("cursor"));
    }
    this.showForm(query.get("edit"));
  }

  showOrdering() {
    for (const header of this.table.head.children) {
      const key = header.querySelector("[data-sort]")?.dataset.sort;
      header.ariaSort = { [key]: "ascending", [`-${key}`]: "descending" }[this.ordering] ?? null;
    }
  }

  // Loads the list from this cursor on.
  reload(cursor) {
    this.list?.close();
    this.list = new PagedList(this.query, cursor);
    this.isLoading = this.hasFailed = false;
    this.clearMarks();
    this.deleted.clear();
    this.others.clear();
    this.notice.hidden = true;
    this.load(false);
  }

  // Loads the page before or after those that are loaded, and shows it.
  async load(isBefore) {
    if (this.isLoading) {
      return;
    }
    this.isLoading = true;
    this.waiting = [];
    this.table.element.ariaBusy = "true";
    const { list } = this;
    const isFirst = !list.pages.length;
    try {
      const shift = isBefore ? await list.loadPrevious() : -(await list.loadNext());
      if (list !== this.list) {
        return;
      }
      this.filters.showErrors({});
      this.table.setRows(list.rows, !list.hasNext);
      if (isFirst) {
        this.table.refreshAll();
        this.table.scrollToStart();
      } else if (shift) {
        this.table.shift(shift);
      }
    } catch (error) {
      if (list === this.list) {
        this.showError(error, isBefore);
      }
      return;
    } finally {
      if (list === this.list) {
        this.isLoading = false;
        this.table.element.ariaBusy = null;
      }
    }
    this.showStatus();
    this.waiting.forEach((changes) => this.onChanges(changes));
    this.countOthers();
    this.table.schedule();
  }

  showStatus() {
    const count = this.table.rows.length;
    const key = this.list.hasNext || this.list.hasPrevious ? "rows_loaded_more" : "rows_loaded";
    this.status.replaceChildren(count ? text(key, { count: formatCount(count) }) : text("nothing_found"));
  }

  showError(error, isBefore) {
    if (error.status === 404 && this.list.start) {
      // a cursor belongs to one set of filters
      this.reload(null);
      return;
    }
    const errors = error.status === 400 && !error.body?.detail ? error.body : {};
    this.filters.showErrors(errors);
    this.hasFailed = true;
    this.retry = () => {
      this.hasFailed = false;
      this.load(isBefore);
    };
    const message = Object.keys(errors).length ? text("nothing_found") : describeError(error);
    this.status.replaceChildren(message, " ", this.reloadButton("load_again", this.retry));
  }

  // Returns a button that loads rows, and is gone afterwards: the focus moves to them.
  reloadButton(label, action) {
    return button(text(label), () => {
      this.table.element.focus();
      action();
    });
  }

  // Loads what could not be loaded before.
  onConnected() {
    if (this.hasFailed) {
      this.retry();
    }
  }

  onScroll(first, last) {
    this.topRow = first;
    if (!this.list?.pages.length || this.hasFailed) {
      return;
    }
    if (this.list.hasNext && last + AHEAD > this.table.rows.length) {
      this.load(false);
    } else if (this.list.hasPrevious && first < AHEAD) {
      this.load(true);
    }
    this.rememberPosition();
  }

  savePosition() {
    if (!this.list) {
      return;
    }
    navigate({ cursor: this.list.cursorAt(this.topRow) ?? null }, { replaces: true, isSilent: true });
  }

  cellsOf(row) {
    const mark = this.marks.has(row.id) && "changed";
    const isDeleted = this.deleted.has(row.id);
    const state = isDeleted ? text("row_deleted") : mark ? text("row_changed") : null;
    // ids beyond this are not exact in JSON
    const isExact = Number.isSafeInteger(row.id);
    const open = button(element("bdi", {}, row.name), () => this.edit(row.id), {
      "data-action": "edit",
      disabled: isDeleted || !isExact,
    });
    return {
      classes: isDeleted ? "deleted" : mark || null,
      cells: [
        String(row.id),
        [open, state && element("span", { class: "state" }, ` ${state}`)],
        element("bdi", {}, row.category_name),
        formatPrice(row.price),
        element("time", { datetime: row.created_at }, formatMoment(row.created_at)),
        row.tags.map((tag) => element("bdi", { class: "tag" }, tag)),
      ],
    };
  }

  // -- changes of others

  // Shows changes from the change feed. No row moves: rows stay where they are until the list is loaded again.
  onChanges({ changed, deleted }) {
    if (this.isLoading) {
      this.waiting.push({ changed, deleted });
    }
    if (!this.list?.pages.length) {
      return;
    }
    changed.forEach(({ id }) => this.deleted.delete(id));
    const rows = changed.filter((product) => this.list.replace(product));
    changed.filter(({ id }) => !this.list.has(id)).forEach(({ id }) => this.others.add(id));
    this.table.rows = this.list.rows;
    rows.forEach(({ id }) => this.mark(id));
    for (const id of deleted) {
      this.others.delete(id);
      this.deleted.add(id);
      this.table.refresh(id);
    }
    this.form?.noteChanges(changed, deleted);
    this.countOthers();
  }

  clearMarks() {
    this.marks.forEach((timer) => clearTimeout(timer));
    this.marks.clear();
  }

  // Marks a row as changed for a while.
  mark(id) {
    clearTimeout(this.marks.get(id));
    const unmark = () => {
      this.marks.delete(id);
      this.table.refresh(id);
    };
    this.marks.set(id, setTimeout(unmark, MARK_DURATION));
    this.table.refresh(id);
  }

  // Says how many changed products the list should show and does not. The server decides which match the filters.
  async updateNotice() {
    const ids = [...this.others].filter((id) => !this.list?.has(id));
    if (!ids.length) {
      this.notice.hidden = true;
      return;
    }
    let count = ids.length;
    if (count <= MAX_ASKED) {
      const query = new URLSearchParams(this.query);
      ids.forEach((id) => query.append("id", id));
      query.set("fields", "id");
      try {
        const { list } = this;
        const matching = await get("products/", query);
        if (list !== this.list) {
          return;
        }
        ids.forEach((id) => this.others.delete(id));
        matching.forEach(({ id }) => this.others.add(id));
        count = matching.length;
      } catch {
        // the number of all changed products is shown instead
      }
    }
    const show = this.reloadButton("show", () => this.reload(null));
    this.notice.replaceChildren(text("other_changes", { count: formatCount(count) }), " ", show);
    this.notice.hidden = !count;
  }

  // Loads the list again, because changes may be missing.
  onGap() {
    if (this.list) {
      this.reload(this.list.cursorAt(this.topRow ?? 0));
    }
  }

  // -- form and export

  // A form takes the place of one that was closed in the history, so that the back button need not pass both.
  edit(id) {
    navigate({ edit: id }, { replaces: history.state === "form", state: "form" });
  }

  async showForm(wanted) {
    const id = (wanted !== "new" || account.is_staff) && wanted ? wanted : null;
    const { form } = this;
    if (this.isOpening || id === (form?.id ?? null)) {
      return;
    }
    if (form) {
      if (!(await form.requestClose()) && this.list) {
        navigate(form.query);
      }
      return;
    }
    this.isOpening = true;
    // the user may go on meanwhile
    const isWanted = () => this.list && currentQuery().get("edit") === id;
    try {
      const opened = await openProductForm(id, isWanted, (product) => this.onFormClosed(product));
      this.form = opened && Object.assign(opened, { id, query: currentQuery() });
    } catch (error) {
      if (isWanted()) {
        announce(describeError(error), true);
        navigate({ edit: null }, { replaces: true });
      }
    } finally {
      this.isOpening = false;
    }
    if (this.list) {
      this.showForm(currentQuery().get("edit"));
    }
  }

  onFormClosed(product) {
    const { id } = this.form;
    this.form = null;
    // the URL may already name something else
    navigate(currentQuery().get("edit") === id ? { edit: null } : {}, { replaces: true });
    if (product) {
      this.onChanges({ changed: [product], deleted: [] });
    } else if (product === null) {
      this.onChanges({ changed: [], deleted: [Number(id)] });
    }
    if (id !== "new") {
      this.table.focus(Number(id));
    }
  }

  async export(format) {
    announce(text("preparing_file"));
    const query = new URLSearchParams(this.query);
    query.set("format", format);
    if (format === "csv") {
      query.set("bom", "true");
    }
    try {
      const response = await request("GET", "products/export/", { query });
      saveFile(await response.blob(), `products.${format}`);
    } catch (error) {
      announce(describeError(error), true);
    }
  }
}
