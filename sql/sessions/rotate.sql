-- Replaces the current refresh token of a session. Returns no row when the presented token is neither the current one
-- nor one that was replaced within the grace, or when the session has expired.
-- $1 session, $2 SHA-256 of the presented token, $3 SHA-256 of the new token, $4 expiry of the new token, before it is
-- capped by the maximum age of the session, $5 that age in seconds, $6 time at which the new access token has expired,
-- $7 grace in seconds, $8 number of replaced tokens that are recorded
update sessions s
   set refresh_hash = $3,
       expires_at = least($4, s.started_at + make_interval(secs => $5)),
       -- null stays null: it stands for tokens whose expiry is unknown
       access_expires_at = case when s.access_expires_at is not null then greatest(s.access_expires_at, $6) end,
       spent_hashes = (array_prepend(s.refresh_hash, array(
           select spent.hash
             from unnest(s.spent_hashes, s.spent_at) with ordinality as spent (hash, replaced_at, number)
            where spent.replaced_at > now() - make_interval(secs => $7)
            order by number
       )))[:$8::int],
       spent_at = (array_prepend(clock_timestamp(), array(
           select spent.replaced_at
             from unnest(s.spent_hashes, s.spent_at) with ordinality as spent (hash, replaced_at, number)
            where spent.replaced_at > now() - make_interval(secs => $7)
            order by number
       )))[:$8::int]
  from users u
 where s.id = $1
   and (
       s.refresh_hash = $2
       -- without a grace, a request that waited for the lock could have begun before the time at which it was spent
       or $7::float8 > 0 and exists (
           select
             from unnest(s.spent_hashes, s.spent_at) as spent (hash, replaced_at)
            where spent.hash = $2
              and spent.replaced_at > now() - make_interval(secs => $7)
       )
   )
   and s.expires_at > now()
   and s.started_at + make_interval(secs => $5) > now()
   and u.id = s.user_id
   and u.is_active
   and u.token_generation = s.token_generation
returning u.id, u.token_generation
