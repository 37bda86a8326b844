-- Returns the response stored under a key, and whether the request body was the same.
-- $1 user id, $2 key, $3 SHA-256 of the body
select request_hash = $3 as is_same_body, response
  from idempotency_keys
 where user_id = $1
   and key = $2
