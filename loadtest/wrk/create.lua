-- Creates products with unique names.
--   wrk -t1 -c16 -d5s -s loadtest/wrk/create.lua -H 'Authorization: Bearer ...' http://127.0.0.1:8000/api/products/
dofile((debug.getinfo(1, 'S').source:match('^@(.*/)') or './') .. 'json.lua')
math.randomseed(os.time())
local run, number = math.random(1e9), 0
wrk.headers['Content-Type'] = 'application/json'
function request()
  number = number + 1
  local body = string.format('{"name":"Load %d %d","description":"made by a load test","price":"19.99",'
    .. '"category_name":"Phones","tags":["new"]}', run, number)
  return wrk.format('POST', nil, nil, body)
end
