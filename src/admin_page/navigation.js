// What the page shows is in the query of its URL, so that it can be shared and the back button works.

let render = null;

// Sets the function that shows the state of the URL; it gets the query.
export function onNavigation(show) {
  render = show;
  addEventListener("popstate", () => show(currentQuery()));
}

export const currentQuery = () => new URLSearchParams(location.search);

// Changes the URL and shows it. `changes` is a whole query (URLSearchParams), or an object with the parameters that
// change; `null` removes one. `replaces`: the back button skips the present URL. `isSilent`: only the URL changes.
// `state` becomes that of the history entry; a replaced entry keeps its own.
export function navigate(changes, { replaces = false, isSilent = false, state = null } = {}) {
  let query = changes;
  if (!(changes instanceof URLSearchParams)) {
    query = currentQuery();
    for (const [name, value] of Object.entries(changes)) {
      query.delete(name);
      if (value != null) {
        query.set(name, value);
      }
    }
  }
  const url = `${location.pathname}${query.size ? `?${query}` : ""}`;
  if (url !== location.pathname + location.search) {
    history[replaces ? "replaceState" : "pushState"](replaces ? history.state : state, "", url);
  }
  if (!isSilent) {
    render(query);
  }
}
