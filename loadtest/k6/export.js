// VUS users download the export repeatedly; an unchanged export comes from the cached file.
//
//   k6 run -e VUS=2 -e DURATION=30s loadtest/k6/export.js
import http from 'k6/http';
import { check } from 'k6';
import { SHOP, enter, thresholds } from './shop.js';

export const options = {
  vus: Number(__ENV.VUS || 2),
  duration: __ENV.DURATION || '30s',
  thresholds: thresholds({ export: 60000 }),
};

export const setup = enter;

export default function ({ headers }) {
  const params = { headers, responseType: 'none', timeout: '300s', tags: { what: 'export' } };
  check(http.get(`${SHOP}/api/products/export/`, params), { export: (r) => r.status === 200 });
}
