// A low rate, a sudden spike of RATE requests per second, then the low rate again, at which latency must recover.
//
//   k6 run -e RATE=2000 loadtest/k6/spike.js
import { enter, thresholds, visits } from './shop.js';

const RATE = Number(__ENV.RATE || 2000);

export const options = {
  scenarios: {
    spike: {
      executor: 'ramping-arrival-rate',
      startRate: 20,
      timeUnit: '1s',
      preAllocatedVUs: 200,
      maxVUs: 1000,
      stages: [
        { target: 20, duration: '5s' },
        { target: RATE, duration: '1s' },
        { target: RATE, duration: '8s' },
        { target: 20, duration: '1s' },
        { target: 20, duration: '5s' },
      ],
    },
  },
  thresholds: thresholds({ list: 500 }),
};

export const setup = enter;

export default visits.list;
