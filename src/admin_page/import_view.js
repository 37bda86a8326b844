// The import of a file: first a dry run that shows what would happen, then the same file for real.

import { announce, button, element, labelled, saveFile } from "./dom.js";
import { ApiError, RequestError, credentials, idempotencyKey, renewed, urlOf } from "./session.js";
import { describeError, formatCount, text } from "./text.js";
import { VirtualTable } from "./virtual_table.js";

const CHARSETS = ["windows-1251", "windows-1252", "iso-8859-2", "koi8-r", "gb18030", "shift_jis"];
const COUNTS = ["created", "updated", "unchanged", "refused"];

// Options of the import: parameter, label, and its values with their labels; the first one is the default.
const OPTIONS = [
  ["on_error", "if_rows_invalid", [["abort", "import_abort"], ["skip", "import_skip"]]],
  ["missing_id", "if_id_missing", [["error", "import_error"], ["create", "import_create"]]],
  ["unknown_columns", "if_columns_unknown", [["refuse", "refuse_columns"], ["ignore", "ignore_columns"]]],
];

// The errors of a report, one per message: `{sheet, row, column, message}`.
function listErrors({ errors = [] }) {
  return errors.flatMap(({ sheet, row, ...columns }) =>
    Object.entries(columns).flatMap(([column, messages]) => {
      const texts = Array.isArray(messages) ? messages : Object.values(messages).flat();
      return texts.map((message) => ({ sheet, row, column, message }));
    }),
  );
}

// A cell of a CSV file. A text that a spreadsheet could take for a formula gets an apostrophe.
function csvCell(value) {
  const safe = /^[\s]*[=+\-@＝＋－＠\t\r]/.test(value) ? `'${value}` : value;
  return `"${safe.replaceAll('"', '""')}"`;
}

export class ImportView {
  constructor() {
    this.file = null;
    const choose = () => this.choose(this.input.files[0]);
    this.input = element("input", { type: "file", accept: ".xlsx,.csv,.txt", onchange: choose });
    this.name = element("bdi");
    const drop = labelled(text("drop_file"), this.input, this.name);
    drop.classList.add("drop");
    const select = (values) => {
      const options = values.map(([value, label]) => element("option", { value }, label));
      return element("select", { onchange: () => this.reset() }, options);
    };
    this.options = Object.fromEntries(
      OPTIONS.map(([name, , values]) => [name, select(values.map(([value, label]) => [value, text(label)]))]),
    );
    this.charset = select([["", text("encoding_auto")], ...CHARSETS.map((name) => [name, name])]);
    this.creates = element("input", { type: "checkbox", onchange: () => this.reset() });
    this.check = button(text("dry_run"), () => this.run(true), { class: "main", disabled: true });
    this.start = button(text("import_now"), () => this.run(false), { class: "main", hidden: true });
    this.cancel = button(text("cancel"), () => this.upload?.abort(), { hidden: true });
    this.progress = element("progress", { max: 1, hidden: true, "aria-label": text("uploading") });
    this.status = element("p", { class: "status", role: "status" });
    this.result = element("div", { class: "result" });
    const options = element(
      "div",
      { class: "filters" },
      OPTIONS.map(([name, label]) => labelled(text(label), this.options[name])),
      labelled(text("encoding"), this.charset),
      labelled(text("create_categories"), this.creates),
    );
    const bar = element("div", { class: "bar" }, this.check, this.start, this.cancel, this.progress, this.status);
    this.element = element("section", { class: "import" }, drop, options, bar, this.result);
    // a file that misses the field would replace the page
    this.element.addEventListener("dragover", (event) => event.preventDefault());
    this.element.addEventListener("drop", (event) => {
      event.preventDefault();
      this.choose(event.dataTransfer.files[0]);
    });
  }

  // What cannot be cancelled goes on.
  close() {
    if (!this.cancel.hidden) {
      this.upload?.abort();
    }
  }

  choose(file) {
    if (file) {
      this.file = file;
      this.reset();
      this.name.textContent = file.name;
      // selecting the same file again is a change, too
      this.input.value = "";
    }
  }

  // Another file or option: what the dry run has shown no longer holds.
  reset() {
    this.key = idempotencyKey();
    this.upload?.abort();
    this.check.disabled = !this.file;
    this.start.hidden = true;
    this.status.replaceChildren();
    this.result.replaceChildren();
  }

  async run(isDryRun) {
    if (this.isBusy) {
      return;
    }
    const query = new URLSearchParams({ dry_run: isDryRun, create_categories: this.creates.checked });
    OPTIONS.forEach(([name]) => query.set(name, this.options[name].value));
    if (isDryRun) {
      // counts the valid rows too, whatever the import does with the invalid ones
      query.set("on_error", "skip");
    }
    this.setBusy(true);
    this.start.hidden ||= isDryRun;
    this.result.replaceChildren();
    try {
      const { status, body } = await this.sendWithToken(query, isDryRun);
      this.showReport(body, isDryRun, status === 200);
    } catch (error) {
      if (error.name === "AbortError") {
        this.status.replaceChildren();
      } else {
        // an import without a response, or with a fault of the server, may have been done
        this.showFailure(error, !isDryRun && (error.key === "offline" || error.status >= 500));
      }
    } finally {
      this.setBusy(false);
    }
  }

  setBusy(isBusy) {
    this.isBusy = isBusy;
    // a disabled button would lose the focus
    this.check.ariaDisabled = this.start.ariaDisabled = isBusy;
    const { activeElement } = document;
    this.cancel.hidden = this.progress.hidden = !isBusy;
    if (activeElement === document.body || activeElement.hidden) {
      this.check.focus();
    }
  }

  // Sends the file, and once more if the token is refused.
  async sendWithToken(query, isDryRun) {
    const { key } = this;
    const send = (token) => this.send(query, { ...token, ...(isDryRun ? {} : key) }, key);
    const token = await credentials();
    try {
      return await send(token);
    } catch (error) {
      if (error.status !== 401) {
        throw error;
      }
    }
    return send(await renewed(token));
  }

  // `fetch` does not report the progress of an upload, XMLHttpRequest does. `key`: that of the file and options.
  send(query, headers, key) {
    if (key !== this.key) {
      throw new DOMException("", "AbortError");
    }
    const { file } = this;
    const type = this.charset.value ? `text/csv; charset=${this.charset.value}` : "application/octet-stream";
    return new Promise((resolve, reject) => {
      const upload = new XMLHttpRequest();
      this.upload = upload;
      upload.open("POST", urlOf("products/import/", query));
      Object.entries({ ...headers, "Content-Type": type }).forEach((header) => upload.setRequestHeader(...header));
      upload.responseType = "json";
      this.status.textContent = text("uploading");
      upload.upload.onprogress = ({ loaded, total }) => {
        this.progress.value = loaded / total;
      };
      upload.upload.onload = () => {
        // the server goes on with what it has
        this.cancel.hidden = "Idempotency-Key" in headers;
        this.progress.removeAttribute("value");
        this.status.textContent = text("checking");
      };
      upload.onload = () => {
        const { status, response: body } = upload;
        const isReport = (status === 200 || status === 400) && body && "created" in body;
        const response = { status, headers: { get: (name) => upload.getResponseHeader(name) } };
        isReport ? resolve({ status, body }) : reject(new ApiError(response, body));
      };
      const fail = (key) => () => reject(new RequestError(key));
      // a file that has changed cannot be read
      upload.onerror = () => file.slice(0, 1).arrayBuffer().then(fail("offline"), fail("file_changed"));
      upload.onabort = () => reject(new DOMException("", "AbortError"));
      upload.send(file);
    });
  }

  showFailure(error, isUnknown) {
    // errors of the file or of a parameter, by name
    const errors = error.status === 400 && !error.body?.detail ? Object.values(error.body ?? {}).flat() : [];
    const messages = errors.length ? errors : [describeError(error)];
    this.status.textContent = isUnknown ? "" : text("import_rejected");
    if (!this.element.isConnected) {
      announce(messages[0], true);
    }
    this.result.replaceChildren(...messages.map((message) => element("p", { class: "error" }, String(message))));
  }

  showReport(report, isDryRun, isAccepted) {
    this.status.textContent = isDryRun ? "" : text(isAccepted ? "import_done" : "import_rejected");
    const rejects = this.options.on_error.value === "abort";
    const counts = { ...report, refused: report.skipped };
    const head = COUNTS.map((name) => element("th", { scope: "col" }, text(name)));
    const cells = COUNTS.map((name) => element("td", { id: `count-${name}` }, formatCount(counts[name])));
    const table = element(
      "table",
      { class: "counts" },
      element("caption", {}, text(isDryRun ? "import_preview" : "import")),
      element("thead", {}, element("tr", {}, head)),
      element("tbody", {}, element("tr", {}, cells)),
    );
    const errors = listErrors(report);
    this.result.replaceChildren(table, ...(errors.length ? this.errorTable(errors, report.errors_omitted) : []));
    const hasChanges = report.created + report.updated > 0;
    this.start.hidden = !isDryRun || !hasChanges || (errors.length > 0 && rejects);
    if (isDryRun && errors.length && rejects) {
      this.status.textContent = text("import_rejected");
    }
    if (!isDryRun && isAccepted) {
      announce(text("import_done"));
      this.key = idempotencyKey();
    }
  }

  errorTable(errors, omitted) {
    const columns = ["sheet", "row", "column", "message"];
    const rows = errors.map((error, index) => ({ index, ...error }));
    const table = new VirtualTable({
      label: text("refused"),
      columns: columns.map((key) => ({ key, title: text(key) })),
      keyOf: (row) => row.index,
      cellsOf: (row) => ({
        // long messages are scrolled
        cells: columns.map((key) => element("bdi", { tabindex: key === "message" && "0" }, String(row[key] ?? ""))),
      }),
    });
    table.setRows(rows, true);
    const save = () => {
      const lines = [columns, ...errors.map((error) => columns.map((key) => String(error[key] ?? "")))];
      const csv = lines.map((line) => line.map(csvCell).join(",")).join("\r\n");
      saveFile(new Blob(["\ufeff", csv, "\r\n"], { type: "text/csv" }), "import-errors.csv");
    };
    const note = omitted ? element("p", {}, text("errors_omitted", { count: formatCount(omitted) })) : "";
    return [button(text("download_errors"), save, { id: "download-errors" }), note, table.element];
  }
}
