-- Reads single products, ids 1 to 100 in turn.
--   wrk -t1 -c64 -d5s -s loadtest/wrk/one.lua -H 'Authorization: Bearer ...' http://127.0.0.1:8000/api/products/
dofile((debug.getinfo(1, 'S').source:match('^@(.*/)') or './') .. 'json.lua')
local number = 0
function request()
  number = number + 1
  return wrk.format('GET', '/api/products/' .. (1 + number % 100) .. '/')
end
