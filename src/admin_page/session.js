// The session: tokens, which stay in this module's memory, and requests to the API that carry them.

const base = new URL("../api/", import.meta.url);
// a token is renewed when it has less than this left (ms), or less than half of its lifetime
const RENEWAL = 30000;

let tokens = null;
let renewal = null;
let prompt = null;
let askToLogIn = null;

// The account that is logged in: `{username, is_staff, ...}`, or `null`.
export let account = null;

// A response that is not a success: `status`, the parsed `body`, and the `headers`.
export class ApiError extends Error {
  constructor(response, body) {
    super(typeof body?.detail === "string" ? body.detail : `HTTP ${response.status}`);
    this.status = response.status;
    this.headers = response.headers;
    this.body = body;
  }
}

// A request without a response: `key` names the text that says why.
export class RequestError extends Error {
  constructor(key) {
    super(key);
    this.key = key;
  }
}

// Sets the function that asks the user to log in again. It returns a promise that is rejected with a `RequestError`
// when the user refuses.
export function onExpired(ask) {
  askToLogIn = ask;
}

// Logs in and loads the account.
export async function logIn(username, password) {
  await obtain("login/", { username, password });
  account = await (await request("GET", "me/")).json();
}

// Revokes the tokens on the server, and forgets them.
export async function logOut() {
  account = null;
  try {
    await request("POST", "logout/", { isBackground: true });
  } catch (error) {
    // a session that has ended needs no end
    if (error.key !== "expired") {
      throw error;
    }
  } finally {
    tokens = null;
  }
}

function authorization() {
  return { Authorization: `Bearer ${tokens?.access}` };
}

async function obtain(path, body) {
  const response = await send("POST", path, { json: body });
  const { token, refresh, expires_in } = await response.json();
  const lifetime = expires_in * 1000;
  tokens = { access: token, refresh, renewAt: Date.now() + Math.max(lifetime - RENEWAL, lifetime / 2) };
}

// Renews the access token, and returns whether the refresh token was good for that.
async function refresh() {
  try {
    if (tokens) {
      await obtain("token/refresh/", { refresh: tokens.refresh });
    }
  } catch (error) {
    if (error.status !== 401) {
      throw error;
    }
    tokens = null;
  }
  return Boolean(tokens);
}

// Renews the access token, or asks the user to log in. Requests that need this at the same time share it.
async function renew(isBackground) {
  renewal ??= refresh().finally(() => {
    renewal = null;
  });
  if (await renewal) {
    return;
  }
  if (isBackground || !account) {
    throw new RequestError("expired");
  }
  prompt ??= askToLogIn().finally(() => {
    prompt = null;
  });
  await prompt;
}

// Returns a header whose value makes repetitions of a request harmless.
export function idempotencyKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return { "Idempotency-Key": Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("") };
}

// Returns headers of a valid access token.
export async function credentials(isBackground) {
  if (!tokens || Date.now() >= tokens.renewAt) {
    await renew(isBackground);
  }
  return authorization();
}

// Sends a request with the token, and once more with a new one if the token is refused. `options`: `query`
// (URLSearchParams), `json`, `body`, `headers`, `signal`, and `isBackground`, which never asks the user to log in.
// Throws an `ApiError` for a status of 400 or more, and a `RequestError` if there is no response.
export async function request(method, path, options = {}) {
  const attempt = (token) => send(method, path, { ...options, headers: { ...options.headers, ...token } });
  const token = await credentials(options.isBackground);
  try {
    return await attempt(token);
  } catch (error) {
    if (error.status !== 401) {
      throw error;
    }
  }
  return attempt(await renewed(token, options.isBackground));
}

// Returns headers of another token than this one, which was refused.
export async function renewed(refused, isBackground) {
  // another request may have renewed it meanwhile
  if (refused.Authorization === authorization().Authorization) {
    await renew(isBackground);
  }
  return credentials(isBackground);
}

// Returns the URL of a path of the API.
export function urlOf(path, query) {
  const url = new URL(path, base);
  url.search = query?.toString() ?? "";
  return url;
}

async function send(method, path, { query, json, body, headers, signal }) {
  const type = json === undefined ? {} : { "Content-Type": "application/json" };
  const response = await fetch(urlOf(path, query), {
    method,
    headers: { ...type, ...headers },
    body: json === undefined ? body : JSON.stringify(json),
    signal,
    cache: "no-cache",
    credentials: "omit",
  }).catch((error) => {
    throw signal?.aborted ? error : new RequestError("offline");
  });
  if (!response.ok) {
    throw new ApiError(response, await response.json().catch(() => null));
  }
  return response;
}

// Returns what a GET of this path returns, as JSON.
export async function get(path, query) {
  return (await request("GET", path, { query })).json();
}
