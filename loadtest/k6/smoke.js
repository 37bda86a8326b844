// Every kind of request once.
//
//   k6 run loadtest/k6/smoke.js
import http from 'k6/http';
import { check } from 'k6';
import { SHOP, enter, thresholds, visits } from './shop.js';

export const options = { vus: 1, iterations: 1, thresholds: thresholds({}) };

export const setup = enter;

export default function (shop) {
  visits.unchanged(shop);
  visits.list(shop);
  visits.page(shop);
  visits.one(shop);
  check(http.get(`${SHOP}/api/me/`, { headers: shop.headers }), { me: (r) => r.status === 200 });
  const file = http.get(`${SHOP}/api/products/export/`, { headers: shop.headers, responseType: 'binary' });
  check(file, { 'export is a zip': (r) => r.status === 200 && new Uint8Array(r.body)[0] === 0x50 });
  check(http.post(`${SHOP}/api/logout/`, null, { headers: shop.headers }), { logout: (r) => r.status === 204 });
}
