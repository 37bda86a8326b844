// A constant load for DURATION. Memory, descriptors and connections must not grow (connections: /metrics or
// deploy/grafana; the others: ps, /proc).
//
//   k6 run -e DURATION=20m -e RATE=200 loadtest/k6/soak.js
import { constantRate, enter, thresholds, visit } from './shop.js';

export const options = {
  scenarios: { soak: constantRate(200, '20m') },
  thresholds: thresholds({ unchanged: 100, list: 250, one: 100, page: 250 }),
};

export const setup = enter;

export default function (shop) {
  visit(shop, { unchanged: 0.4, list: 0.3, one: 0.2, page: 0.1 });
}
