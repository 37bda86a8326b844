// Shared by the scripts: account, token, product ids, and the kinds of requests.
import http from 'k6/http';
import { check, fail } from 'k6';

export const SHOP = __ENV.SHOP || 'http://127.0.0.1:8000';
export const JSON_BODY = { headers: { 'Content-Type': 'application/json' } };

// RATE (default `rate`) requests per second for DURATION (default `duration`). The rate does not drop when the server
// stalls, so the stall is measured.
export function constantRate(rate, duration, more = {}) {
  return {
    executor: 'constant-arrival-rate',
    rate: Number(__ENV.RATE || rate),
    timeUnit: '1s',
    duration: __ENV.DURATION || duration,
    preAllocatedVUs: 50,
    maxVUs: 500,
    ...more,
  };
}

// Every request succeeds, and the p99 of each kind (ms) is within its limit.
export function thresholds(p99, more = {}) {
  const limits = { checks: ['rate==1'], http_req_failed: ['rate==0'], dropped_iterations: ['count==0'], ...more };
  for (const [what, ms] of Object.entries(p99)) limits[`http_req_duration{what:${what}}`] = [`p(99)<${ms}`];
  return limits;
}

export function register() {
  const name = `load-${Date.now()}-${Math.floor(Math.random() * 1e9)}`;
  const account = { username: name, email: `${name}@example.com`, password: `${Math.random()}-${Math.random()}` };
  const registered = http.post(`${SHOP}/api/register/`, JSON.stringify(account), JSON_BODY);
  if (registered.status !== 201) fail(`register: ${registered.status} ${registered.body}`);
  return account;
}

function login() {
  const { STAFF_USER: username, STAFF_PASSWORD: password } = __ENV;
  const account = username ? { username, password } : register();
  const response = http.post(`${SHOP}/api/login/`, JSON.stringify(account), JSON_BODY);
  if (response.status !== 200) fail(`login: ${response.status} ${response.body}`);
  return response.json('token');
}

// Request headers, the list's ETag and product ids. The account: TOKEN, STAFF_USER with STAFF_PASSWORD, or a new one.
export function enter() {
  const headers = { Authorization: `Bearer ${__ENV.TOKEN || login()}`, 'Accept-Encoding': 'gzip' };
  const list = http.get(`${SHOP}/api/products/`, { headers });
  if (list.status !== 200) fail(`list: ${list.status} ${list.body}`);
  return { headers, etag: list.headers.Etag, ids: list.json().slice(0, 1000).map((product) => product.id) };
}

export function anyOf(ids) {
  return ids[Math.floor(Math.random() * ids.length)];
}

export const visits = {
  unchanged({ headers, etag }) {
    // a streamed list may have no ETag
    if (!etag) return visits.list({ headers });
    const params = { headers: { ...headers, 'If-None-Match': etag }, tags: { what: 'unchanged' } };
    check(http.get(`${SHOP}/api/products/`, params), { 'list or 304': (r) => r.status === 304 || r.status === 200 });
  },
  list({ headers }) {
    check(http.get(`${SHOP}/api/products/`, { headers, tags: { what: 'list' } }), { list: (r) => r.status === 200 });
  },
  one({ headers, ids }) {
    if (ids.length === 0) return visits.list({ headers });
    // the product may have been deleted
    const tags = { what: 'one', name: `${SHOP}/api/products/{id}/` };
    const params = { headers, responseCallback: http.expectedStatuses(200, 404), tags };
    const response = http.get(`${SHOP}/api/products/${anyOf(ids)}/`, params);
    check(response, { one: (r) => r.status === 200 || r.status === 404 });
  },
  page({ headers }) {
    const address = `${SHOP}/api/products/?page_size=100&price_min=${Math.floor(Math.random() * 5000)}&ordering=price`;
    const params = { headers, tags: { what: 'page', name: `${SHOP}/api/products/?page_size` } };
    check(http.get(address, params), { page: (r) => r.status === 200 });
  },
  change({ headers, ids }) {
    const tags = { what: 'change', name: `${SHOP}/api/products/{id}/` };
    const params = { headers: { ...headers, ...JSON_BODY.headers }, tags };
    const body = JSON.stringify({ price: `${Math.floor(Math.random() * 9000)}.99` });
    check(http.patch(`${SHOP}/api/products/${anyOf(ids)}/`, body, params), { change: (r) => r.status === 200 });
  },
};

// Sends one request of a random kind; `shares` are the probabilities.
export function visit(shop, shares) {
  const kinds = Object.keys(shares);
  let random = Math.random();
  visits[kinds.find((what) => (random -= shares[what]) < 0) ?? kinds[0]](shop);
}
