-- Logs in repeatedly.
--   wrk -t1 -c16 -d5s -s loadtest/wrk/login.lua http://127.0.0.1:8000/api/login/
dofile((debug.getinfo(1, 'S').source:match('^@(.*/)') or './') .. 'json.lua')
wrk.method = 'POST'
wrk.headers['Content-Type'] = 'application/json'
wrk.body = '{"username":"user1","password":"a password for load tests"}'
