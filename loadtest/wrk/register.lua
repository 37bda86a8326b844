-- Registers accounts with unique names.
--   wrk -t1 -c16 -d5s -s loadtest/wrk/register.lua http://127.0.0.1:8000/api/register/
dofile((debug.getinfo(1, 'S').source:match('^@(.*/)') or './') .. 'json.lua')
math.randomseed(os.time())
local run, number = math.random(1e9), 0
wrk.headers['Content-Type'] = 'application/json'
function request()
  number = number + 1
  local name = string.format('load-%d-%d', run, number)
  local body = string.format('{"username":"%s","email":"%s@example.com","password":"one of many, for load %d"}',
    name, name, number)
  return wrk.format('POST', nil, nil, body)
end
