-- what was answered under a key, and whether it was to the same body; $1 user, $2 key, $3 SHA-256 of the body
select request_hash = $3, answer
  from idempotency_keys
 where user_id = $1
   and key = $2
