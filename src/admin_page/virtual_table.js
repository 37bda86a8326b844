// A table of any length: only the rows that are visible exist as elements. All rows have the same height, which the
// style sheet defines.

import { element } from "./dom.js";

// rows above and below the visible ones
const OVERSCAN = 8;

// `columns`: `[{key, title}]`, where the title is a text or an element. `keyOf(row)` identifies a row, and
// `cellsOf(row)` returns the contents of its cells. `onScroll(first, last)` gets the indices of the visible rows.
export class VirtualTable {
  constructor({ label, columns, keyOf, cellsOf, onScroll }) {
    Object.assign(this, { columns, keyOf, cellsOf, onScroll });
    this.rows = [];
    // the visible rows by key
    this.elements = new Map();
    const header = ({ key, title }) => element("th", { scope: "col", role: "columnheader", class: key }, title);
    this.head = element("tr", { role: "row" }, columns.map(header));
    this.before = element("tr", { "aria-hidden": "true", class: "space" });
    this.after = this.before.cloneNode();
    this.body = element("tbody", { role: "rowgroup" }, this.before, this.after);
    // the style sheet may lay rows out as blocks, which removes the roles that elements of a table have
    this.table = element(
      "table",
      { role: "table", "aria-label": label },
      element("thead", { role: "rowgroup" }, this.head),
      this.body,
    );
    this.element = element("div", { class: "table", tabindex: "0", role: "region", "aria-label": label }, this.table);
    this.element.addEventListener("scroll", () => this.schedule());
    new ResizeObserver(() => this.schedule()).observe(this.element);
  }

  // Shows these rows. `isComplete`: no further rows follow.
  setRows(rows, isComplete) {
    this.rows = rows;
    this.table.setAttribute("aria-rowcount", isComplete ? rows.length + 1 : -1);
    this.schedule();
  }

  // Builds the row with this key again.
  refresh(key) {
    const old = this.elements.get(key);
    if (old && this.rows[old.rowIndexInList]) {
      const focused = old.contains(document.activeElement) ? document.activeElement.dataset.action : null;
      const row = this.build(this.rows[old.rowIndexInList], old.rowIndexInList);
      old.replaceWith(row);
      row.querySelector(`[data-action="${focused}"]`)?.focus();
    }
  }

  // Builds all visible rows again.
  refreshAll() {
    const active = document.activeElement;
    const [focused] = [...this.elements].find(([, row]) => row.contains(active)) ?? [];
    this.elements.forEach((row) => row.remove());
    this.elements.clear();
    this.render();
    if (focused !== undefined) {
      this.focus(focused, active.dataset.action);
    }
  }

  // Scrolls so that what is visible stays in place after `count` rows were added (or removed) at the start.
  shift(count) {
    this.render();
    this.element.scrollTop += count * this.rowHeight();
    this.render();
  }

  scrollToStart() {
    this.element.scrollTop = 0;
  }

  // Moves the focus to the button of a row, or to the table if the row is not visible.
  focus(key, action = "edit") {
    const button = this.elements.get(key)?.querySelector(`[data-action="${action}"]:not(:disabled)`);
    (button ?? this.element).focus({ preventScroll: true });
  }

  schedule() {
    this.frame ??= requestAnimationFrame(() => this.render());
  }

  rowHeight() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    return rem * parseFloat(getComputedStyle(this.element).getPropertyValue("--row-height"));
  }

  render() {
    cancelAnimationFrame(this.frame);
    this.frame = undefined;
    if (!this.element.isConnected) {
      return;
    }
    const height = this.rowHeight();
    const top = Math.floor(this.element.scrollTop / height);
    const bottom = Math.ceil((this.element.scrollTop + this.element.clientHeight) / height);
    const first = Math.max(0, Math.min(top - OVERSCAN, this.rows.length));
    const last = Math.max(first, Math.min(bottom + OVERSCAN, this.rows.length));
    const shown = new Map();
    for (let index = first; index < last; index += 1) {
      const row = this.rows[index];
      const key = this.keyOf(row);
      const old = this.elements.get(key);
      if (old) {
        old.rowIndexInList = index;
        old.setAttribute("aria-rowindex", index + 2);
      }
      shown.set(key, old ?? this.build(row, index));
    }
    for (const [key, row] of this.elements) {
      if (!shown.has(key)) {
        // keyboard users go on from where they are
        if (row.contains(document.activeElement)) {
          this.element.focus({ preventScroll: true });
        }
        row.remove();
        this.elements.delete(key);
      }
    }
    let previous = this.before;
    for (const [key, row] of shown) {
      if (previous.nextSibling !== row) {
        previous.after(row);
      }
      this.elements.set(key, row);
      previous = row;
    }
    this.before.style.height = `${first * height}px`;
    this.after.style.height = `${(this.rows.length - last) * height}px`;
    this.onScroll?.(top, bottom);
  }

  build(row, index) {
    const { classes, cells } = this.cellsOf(row);
    const children = cells.map((cell, column) =>
      element("td", { role: "cell", class: this.columns[column].key }, cell),
    );
    const built = element("tr", { role: "row", class: classes, "aria-rowindex": index + 2 }, children);
    built.rowIndexInList = index;
    this.elements.set(this.keyOf(row), built);
    return built;
  }
}
