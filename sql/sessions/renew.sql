-- spends a refresh token for the next one, if it is the one in force; $1 session, $2 SHA-256 of the one presented,
-- $3 of the next, $4 when that expires if the session may become so old, $5 how many seconds it may last in all
update sessions s
   set refresh_hash = $3, expires_at = least($4, s.started_at + make_interval(secs => $5))
  from users u
 where s.id = $1
   and s.refresh_hash = $2
   and s.expires_at > now()
   and s.started_at + make_interval(secs => $5) > now()
   and u.id = s.user_id
   and u.is_active
   and u.token_generation = s.generation
returning u.id, u.token_generation
