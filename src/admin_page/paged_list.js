// Products that are loaded page by page, forwards and backwards, as the user scrolls.

import { request } from "./session.js";

const PAGE_SIZE = 200;
// descriptions may be long, and the table does not show them
export const COLUMNS = ["id", "name", "category_name", "price", "created_at", "tags"];
// further pages replace those that are farthest away
const MAX_PAGES = 250;

// Returns the cursors of a response's `Link` header by relation: `{next, prev}`.
function cursorsOf(response) {
  const links = (response.headers.get("Link") ?? "").matchAll(/<[^>]*[?&]cursor=([^&>]+)[^>]*>; *rel="(\w+)"/g);
  return Object.fromEntries(Array.from(links, ([, cursor, relation]) => [relation, decodeURIComponent(cursor)]));
}

export class PagedList {
  // `filters`: the query of the list without paging. `cursor`: where to start, otherwise at the first product.
  constructor(filters, cursor) {
    this.filters = filters;
    this.pages = [];
    this.start = cursor;
    // the page of each loaded id
    this.pageOf = new Map();
    this.controller = new AbortController();
  }

  // Ends requests under way; they fail with an `AbortError`.
  close() {
    this.controller.abort();
  }

  get rows() {
    return this.pages.flatMap((page) => page.rows);
  }

  get hasNext() {
    return !this.pages.length || Boolean(this.pages.at(-1).next);
  }

  get hasPrevious() {
    return Boolean(this.pages[0]?.prev);
  }

  // Loads the page after the last one. Returns the number of rows that were dropped at the start.
  async loadNext() {
    const page = await this.load(this.pages.length ? this.pages.at(-1).next : this.start);
    this.pages.push(page);
    return this.pages.length > MAX_PAGES ? this.drop(this.pages.shift()) : 0;
  }

  // Loads the page before the first one. Returns the number of its rows.
  async loadPrevious() {
    const page = await this.load(this.pages[0].prev);
    this.pages.unshift(page);
    if (this.pages.length > MAX_PAGES) {
      this.drop(this.pages.pop());
    }
    return page.rows.length;
  }

  drop(page) {
    page.rows.forEach((row) => this.pageOf.delete(row.id));
    return page.rows.length;
  }

  async load(cursor) {
    const query = new URLSearchParams(this.filters);
    query.set("page_size", PAGE_SIZE);
    query.set("fields", COLUMNS);
    if (cursor) {
      query.set("cursor", cursor);
    }
    const response = await request("GET", "products/", { query, signal: this.controller.signal });
    // a product that was changed between two requests can be on both pages
    const rows = (await response.json()).filter((row) => !this.pageOf.has(row.id));
    const page = { rows, cursor, ...cursorsOf(response) };
    rows.forEach((row) => this.pageOf.set(row.id, page));
    return page;
  }

  // Returns the cursor of the page that contains this row; none for the first page.
  cursorAt(index) {
    let first = 0;
    for (const page of this.pages) {
      first += page.rows.length;
      if (index < first) {
        return page.cursor;
      }
    }
    return undefined;
  }

  // Replaces the row with this product's id. Returns whether there is one.
  replace({ description, ...product }) {
    const rows = this.pageOf.get(product.id)?.rows;
    if (rows) {
      rows[rows.findIndex((row) => row.id === product.id)] = product;
    }
    return Boolean(rows);
  }

  has(id) {
    return this.pageOf.has(id);
  }
}
