// Starts the page: login, navigation between the views, and the change feed.

import { announce, button, element, labelled, openDialog } from "./dom.js";
import { follow } from "./events.js";
import { ImportView } from "./import_view.js";
import { loadNames } from "./names.js";
import { NamesView } from "./names_view.js";
import { currentQuery, navigate, onNavigation } from "./navigation.js";
import { ProductsView } from "./products.js";
import { RequestError, account, logIn, logOut, onExpired } from "./session.js";
import { describeError, language, text } from "./text.js";

const VIEWS = {
  products: () => new ProductsView(),
  categories: () => new NamesView("category"),
  tags: () => new NamesView("tag"),
  import: () => new ImportView(),
};
// time for the change feed to begin before the first list is loaded (ms)
const FEED_START = 1000;

const header = document.querySelector("header");
const main = document.querySelector("main");
const connection = document.getElementById("connection");

let view = null;
let viewName = null;
let feed = null;

document.documentElement.lang = language;
document.title = `${text("page")} · TestShop`;

// A form that logs in. Calls `onSuccess` afterwards.
function loginForm(onSuccess, username = "") {
  const field = (name, properties) => element("input", { name, required: true, ...properties });
  const name = field("username", { autocomplete: "username", autocapitalize: "none", value: username });
  const password = field("password", { autocomplete: "current-password", type: "password" });
  const error = element("p", { class: "error", role: "alert" });
  const submit = element("button", { class: "main" }, text("log_in"));
  const attempt = async (event) => {
    event.preventDefault();
    submit.disabled = true;
    error.textContent = "";
    try {
      await logIn(name.value, password.value);
      onSuccess();
    } catch (failure) {
      const isWrong = failure.status === 401 || failure.status === 400;
      error.textContent = isWrong ? text("wrong_credentials") : describeError(failure);
      password.select();
    } finally {
      submit.disabled = false;
    }
  };
  const fields = [labelled(text("username"), name), labelled(text("password"), password)];
  return element("form", { class: "login", onsubmit: attempt, novalidate: true }, fields, error, submit);
}

// Asks for the password again when the session has ended. What is open below the dialog stays as it is, unless another
// account logs in: what the first one had begun is not done in its name.
function askToLogIn() {
  return new Promise((resolve, reject) => {
    const before = account;
    const content = element("div", {}, element("p", {}, text("expired_details")));
    const dialog = openDialog(text("expired"), content);
    let isSame = false;
    const done = () => {
      isSame = before.id === account.id && before.is_staff === account.is_staff;
      dialog.close();
      if (!isSame) {
        start();
      }
    };
    content.append(loginForm(done, before.username));
    dialog.addEventListener("close", () => (isSame ? resolve() : reject(new RequestError("expired"))));
    content.querySelector("[type=password]").focus();
  });
}

function showLogin() {
  header.hidden = true;
  const content = element("section", { class: "login-page" }, element("h1", {}, text("page")), loginForm(start));
  main.replaceChildren(content);
  content.querySelector("input").focus();
}

// Shows the page to the account that has just logged in.
async function start() {
  stop();
  header.hidden = false;
  showHeader();
  main.replaceChildren(element("p", { class: "status" }, text("loading")));
  await Promise.race([startFeed(), new Promise((resolve) => setTimeout(resolve, FEED_START))]);
  if (!account) {
    return;
  }
  loadNames("category").catch(() => {});
  loadNames("tag").catch(() => {});
  render(currentQuery());
}

function stop() {
  feed?.abort();
  closeView();
}

function closeView() {
  view?.close();
  document.querySelectorAll("dialog").forEach((dialog) => dialog.close());
  view = viewName = null;
}

function showHeader() {
  const names = Object.keys(VIEWS).filter((name) => name !== "import" || account.is_staff);
  const links = names.map((name) => {
    const open = (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.shiftKey) {
        event.preventDefault();
        navigate(new URLSearchParams(name === "products" ? {} : { view: name }));
      }
    };
    const href = name === "products" ? location.pathname : `?view=${name}`;
    return element("a", { href, onclick: open, "data-view": name }, text(name));
  });
  header.querySelector("nav").replaceChildren(...links);
  const leave = button(text("log_out"), async () => {
    stop();
    main.replaceChildren();
    try {
      await logOut();
    } catch (error) {
      announce(describeError(error), true);
    }
    showLogin();
  });
  const name = element("bdi", { title: account.is_staff ? null : text("read_only") }, account.username);
  document.getElementById("account").replaceChildren(name, " ", leave);
}

// Follows the change feed. Returns a promise that is fulfilled when the feed has begun.
function startFeed() {
  feed = new AbortController();
  const { signal } = feed;
  showConnection("connecting");
  return new Promise((resolve) => {
    follow({
      signal,
      onChanges: (changes) => view?.onChanges?.(changes),
      onGap: () => view?.onGap?.(),
      onState: (isConnected) => {
        showConnection(isConnected ? "connected" : "connection_lost");
        if (isConnected) {
          view?.onConnected?.();
        }
        resolve();
      },
    });
  });
}

function showConnection(state) {
  connection.dataset.state = state;
  connection.textContent = text(state);
}

// Shows what the query of the URL says.
function render(query) {
  if (!account) {
    return;
  }
  const wanted = query.get("view");
  const name = Object.hasOwn(VIEWS, wanted) && (wanted !== "import" || account.is_staff) ? wanted : "products";
  if (name !== viewName) {
    if (view?.form) {
      // shows the view when the form is closed
      view.showForm(null);
      return;
    }
    closeView();
    view = VIEWS[name]();
    viewName = name;
    main.replaceChildren(element("h1", { class: "hidden" }, text(name)), view.element);
    document.title = `${text(name)} · TestShop`;
    header.querySelectorAll("[data-view]").forEach((link) => {
      link.ariaCurrent = link.dataset.view === name ? "page" : null;
    });
  }
  view.show?.(query);
}

addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, textarea, select, dialog");
  const search = document.getElementById("search");
  if (event.key === "/" && !isTyping && search) {
    event.preventDefault();
    search.closest("details")?.setAttribute("open", "");
    search.focus();
    search.select();
  }
});

addEventListener("beforeunload", (event) => {
  if (view?.form?.isDirty || view?.isBusy) {
    event.preventDefault();
  }
});

onExpired(askToLogIn);
onNavigation(render);
showLogin();
