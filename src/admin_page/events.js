// Follows the change feed (`products/events/`): a stream of server-sent events that needs the token in a header, which
// the browser's EventSource cannot send.

import { request } from "./session.js";

// ms; the server sends a comment every 15 s
const SILENCE = 40000;
const MIN_DELAY = 500;
const MAX_DELAY = 15000;

// Yields the events of a stream as `{event, id, data}`.
async function* parse(stream, onData) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = {};
  for (;;) {
    const { value, done } = await reader.read();
    if (done) {
      return;
    }
    onData();
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const [, name, content] = /^([^:]*):? ?(.*)$/s.exec(line.replace(/\r$/, ""));
      if (line.length > 1) {
        event[name] = content;
      } else {
        yield event;
        event = {};
      }
    }
  }
}

// Waits until the page is visible. A browser opens six connections to a server: tabs that nobody sees leave them to
// others, and continue where they were.
const visible = () =>
  new Promise((resolve) =>
    document.hidden ? document.addEventListener("visibilitychange", resolve, { once: true }) : resolve(),
  );

// Calls `onChanges({changed, deleted})` for each event, `onGap()` when changes are lost, and `onState(isConnected)`,
// until the signal aborts.
export async function follow({ onChanges, onGap, onState, signal }) {
  let last = null;
  let delay = MIN_DELAY;
  const apply = ({ event, id, data }) => {
    if (event === "expired") {
      last = null;
      onGap();
      return;
    }
    if (id && !last) {
      // what changed before this state is unknown
      onGap();
      onState(true);
    }
    last = id ?? last;
    if (data) {
      onChanges(JSON.parse(data));
    } else if (id) {
      // a change of a category or tag that no product has
      onChanges({ changed: [], deleted: [] });
    }
  };
  for (;;) {
    await visible();
    if (signal.aborted) {
      return;
    }
    const connection = new AbortController();
    const abort = () => connection.abort();
    signal.addEventListener("abort", abort);
    document.addEventListener("visibilitychange", abort);
    let timer;
    const restartTimer = () => {
      clearTimeout(timer);
      timer = setTimeout(abort, SILENCE);
    };
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      restartTimer();
      const options = { headers, signal: connection.signal, isBackground: true };
      const response = await request("GET", "products/events/", options);
      if (last) {
        onState(true);
      }
      delay = MIN_DELAY;
      for await (const event of parse(response.body, restartTimer)) {
        apply(event);
      }
    } catch (error) {
      if (error.status === 410) {
        apply({ event: "expired" });
      }
      if (!signal.aborted && !document.hidden) {
        onState(false);
      }
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
      document.removeEventListener("visibilitychange", abort);
      abort();
    }
    if (!signal.aborted && !document.hidden) {
      await new Promise((resolve) => setTimeout(resolve, delay * (0.5 + Math.random())));
      delay = Math.min(delay * 2, MAX_DELAY);
    }
  }
}
