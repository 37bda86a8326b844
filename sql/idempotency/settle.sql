-- remembers the answer; $1 user, $2 key, $3 answer
update idempotency_keys
   set answer = $3
 where user_id = $1
   and key = $2
