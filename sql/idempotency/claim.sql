-- takes a key, if nobody has it or its day is over; waits for whoever is taking it. $1 user, $2 key, $3 SHA-256 of the body
insert into idempotency_keys as known (user_id, key, request_hash)
values ($1, $2, $3)
    on conflict (user_id, key) do update
   set request_hash = excluded.request_hash, answer = null, created_at = now()
 where known.created_at < now() - interval '24 hours'
returning key
