// Readers, and staff that change prices at CHANGES per second. Needs a staff account.
//
//   k6 run -e STAFF_USER=admin -e STAFF_PASSWORD=... -e RATE=200 -e CHANGES=10 -e DURATION=30s loadtest/k6/mixed.js
import { constantRate, enter, thresholds, visit, visits } from './shop.js';

export const options = {
  scenarios: {
    readers: constantRate(200, '30s', { exec: 'read' }),
    staff: constantRate(10, '30s', { exec: 'change', rate: Number(__ENV.CHANGES || 10) }),
  },
  thresholds: thresholds({ unchanged: 100, list: 250, one: 100, page: 250, change: 250 }),
};

export const setup = enter;

export function read(shop) {
  visit(shop, { unchanged: 0.3, list: 0.3, one: 0.2, page: 0.2 });
}

export const change = visits.change;
