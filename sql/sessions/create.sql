-- Creates a session, unless the account has changed since its password was checked.
-- $1 id, $2 user id, $3 SHA-256 of the refresh token, $4 its expiry, $5 token generation of the user
insert into sessions (id, user_id, refresh_hash, expires_at, token_generation)
select $1, id, $3, $4, token_generation
  from users
 where id = $2
   and is_active
   and token_generation = $5
   for share
returning id
