// VUS users log in without a pause while others read: password hashing must not starve the readers. A login may be
// rejected with 503 and Retry-After, a read may not. Needs a server with RATE_LIMIT=off, otherwise most logins are
// rate limited.
//
//   k6 run -e VUS=200 -e RATE=100 -e DURATION=30s loadtest/k6/logins.js
import http from 'k6/http';
import { check } from 'k6';
import { JSON_BODY, SHOP, constantRate, enter, register, thresholds, visits } from './shop.js';

export const options = {
  scenarios: {
    readers: constantRate(100, '30s', { exec: 'read' }),
    flood: {
      executor: 'constant-vus',
      vus: Number(__ENV.VUS || 200),
      duration: __ENV.DURATION || '30s',
      exec: 'login',
    },
  },
  thresholds: thresholds({ list: 250 }),
};

export function setup() {
  return { ...enter(), account: JSON.stringify(register()) };
}

export const read = visits.list;

export function login({ account }) {
  const params = { ...JSON_BODY, responseCallback: http.expectedStatuses(200, 503), tags: { what: 'login' } };
  const isExpected = (r) => r.status === 200 || (r.status === 503 && r.headers['Retry-After'] !== undefined);
  check(http.post(`${SHOP}/api/login/`, account, params), { 'login or 503': isExpected });
}
