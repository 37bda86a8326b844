-- Prints the results of wrk as one line of JSON.
--   wrk -t1 -c64 -d5s -s loadtest/wrk/json.lua -H 'Authorization: Bearer ...' http://127.0.0.1:8000/api/products/
function done(summary, latency, requests)
  local by_kind = summary.errors
  local errors = by_kind.connect + by_kind.read + by_kind.write + by_kind.status + by_kind.timeout
  print(string.format('JSON {"requests":%d,"rate":%.1f,"bytes":%d,"errors":%d,"p50":%.3f,"p99":%.3f,"max":%.3f}',
    summary.requests, summary.requests / summary.duration * 1e6, summary.bytes, errors,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end
