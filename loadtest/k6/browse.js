// Somebody browses the shop: RATE requests a second (constant arrival: a stall is seen, not hidden) for DURATION against
// SHOP. Most ask whether the list has changed, some take it whole, some look at one product. Makes its own account.
//
//   k6 run loadtest/k6/browse.js            docker compose --profile load up load
import http from 'k6/http';
import { check, fail } from 'k6';

const SHOP = __ENV.SHOP || 'http://127.0.0.1:8000';
const JSON_BODY = { headers: { 'Content-Type': 'application/json' } };

export const options = {
  scenarios: {
    browse: {
      executor: 'constant-arrival-rate',
      rate: Number(__ENV.RATE || 200),
      timeUnit: '1s',
      duration: __ENV.DURATION || '30s',
      preAllocatedVUs: 50,
      maxVUs: 500,
    },
  },
  thresholds: {
    checks: ['rate==1'],
    http_req_failed: ['rate==0'],
    'http_req_duration{what:unchanged}': ['p(99)<100'],
    'http_req_duration{what:list}': ['p(99)<250'],
    'http_req_duration{what:one}': ['p(99)<100'],
    dropped_iterations: ['count==0'],
  },
};

export function setup() {
  const name = `load-${Date.now()}-${Math.floor(Math.random() * 1e9)}`;
  const account = { username: name, email: `${name}@example.com`, password: `${Math.random()}-${Math.random()}` };
  const registered = http.post(`${SHOP}/api/register/`, JSON.stringify(account), JSON_BODY);
  if (registered.status !== 201) fail(`register: ${registered.status} ${registered.body}`);
  const login = http.post(`${SHOP}/api/login/`, JSON.stringify(account), JSON_BODY);
  if (login.status !== 200) fail(`login: ${login.status} ${login.body}`);
  const headers = { Authorization: `Bearer ${login.json('token')}`, 'Accept-Encoding': 'gzip' };
  const list = http.get(`${SHOP}/api/products/`, { headers });
  if (list.status !== 200) fail(`list: ${list.status} ${list.body}`);
  return { headers, etag: list.headers.Etag, ids: list.json().slice(0, 1000).map((product) => product.id) };
}

export default function ({ headers, etag, ids }) {
  const dice = Math.random();
  if (dice < 0.6 && etag) {
    const params = { headers: { ...headers, 'If-None-Match': etag }, tags: { what: 'unchanged' } };
    check(http.get(`${SHOP}/api/products/`, params), { 'list or 304': (r) => r.status === 304 || r.status === 200 });
  } else if (dice < 0.8 || ids.length === 0) {
    check(http.get(`${SHOP}/api/products/`, { headers, tags: { what: 'list' } }), { 'list': (r) => r.status === 200 });
  } else {
    const id = ids[Math.floor(Math.random() * ids.length)];
    // somebody may have deleted it meanwhile
    const responseCallback = http.expectedStatuses(200, 404);
    const params = { headers, responseCallback, tags: { what: 'one', name: `${SHOP}/api/products/{id}/` } };
    check(http.get(`${SHOP}/api/products/${id}/`, params), { 'one': (r) => r.status === 200 || r.status === 404 });
  }
}
