-- Claims a key that is unused or older than 24 hours; waits for a transaction that is claiming it. Returns no row
-- when the key is in use. $1 user id, $2 key, $3 SHA-256 of the body
insert into idempotency_keys as stored (user_id, key, request_hash)
values ($1, $2, $3)
    on conflict (user_id, key) do update
   set request_hash = excluded.request_hash, response = null, created_at = now()
 where stored.created_at < now() - interval '24 hours'
returning key
