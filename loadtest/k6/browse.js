// Users browse: conditional list requests, full lists and single products.
// WHAT=list (or unchanged, one, page) sends requests of that kind only.
//
//   k6 run -e SHOP=http://127.0.0.1:8000 -e RATE=200 -e DURATION=30s loadtest/k6/browse.js
//   docker compose --profile load up load
import { constantRate, enter, thresholds, visit, visits } from './shop.js';

export const options = {
  scenarios: { browse: constantRate(200, '30s') },
  thresholds: thresholds({ unchanged: 100, list: 250, one: 100 }),
};

export const setup = enter;

export default function (shop) {
  if (__ENV.WHAT) visits[__ENV.WHAT](shop);
  else visit(shop, { unchanged: 0.6, list: 0.2, one: 0.2 });
}
