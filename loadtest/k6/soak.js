// The same load for long: DURATION of it. Watch memory, descriptors and connections meanwhile (/metrics, deploy/monitoring).
//
//   k6 run -e DURATION=20m -e RATE=200 loadtest/k6/soak.js
import { constantRate, enter, thresholds, visits } from './shop.js';

export const options = {
  scenarios: { soak: constantRate(200, '20m') },
  thresholds: thresholds({ unchanged: 100, list: 250, one: 100, page: 250 }),
};

export const setup = enter;

export default function (shop) {
  const dice = Math.random();
  if (dice < 0.4) visits.unchanged(shop);
  else if (dice < 0.7) visits.list(shop);
  else if (dice < 0.9) visits.one(shop);
  else visits.page(shop);
}
