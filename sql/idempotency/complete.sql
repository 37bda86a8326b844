-- Stores the response under a claimed key. $1 user id, $2 key, $3 response
update idempotency_keys
   set response = $3
 where user_id = $1
   and key = $2
