-- Changes the prices of products, ids 1 to 100 in turn.
--   wrk -t1 -c16 -d5s -s loadtest/wrk/patch.lua -H 'Authorization: Bearer ...' http://127.0.0.1:8000/api/products/
dofile((debug.getinfo(1, 'S').source:match('^@(.*/)') or './') .. 'json.lua')
local number = 0
wrk.headers['Content-Type'] = 'application/json'
function request()
  number = number + 1
  local body = string.format('{"price":"%d.99"}', number % 10000)
  return wrk.format('PATCH', '/api/products/' .. (1 + number % 100) .. '/', nil, body)
end
