-- Replaces the current refresh token of a session. Returns no row when the presented token is not the current one or
-- the session has expired.
-- $1 session, $2 SHA-256 of the presented token, $3 SHA-256 of the new token, $4 expiry of the new token, before it is
-- capped by the maximum age of the session, $5 that age in seconds, $6 time at which the new access token has expired
update sessions s
   set refresh_hash = $3,
       expires_at = least($4, s.started_at + make_interval(secs => $5)),
       -- null stays null: it stands for tokens whose expiry is unknown
       access_expires_at = case when s.access_expires_at is not null then greatest(s.access_expires_at, $6) end
  from users u
 where s.id = $1
   and s.refresh_hash = $2
   and s.expires_at > now()
   and s.started_at + make_interval(secs => $5) > now()
   and u.id = s.user_id
   and u.is_active
   and u.token_generation = s.token_generation
returning u.id, u.token_generation
