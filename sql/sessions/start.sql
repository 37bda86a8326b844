-- a login that can be renewed, unless the account has changed since its password was checked;
-- $1 id, $2 user, $3 SHA-256 of the refresh token, $4 when it expires, $5 generation of the user's tokens
insert into sessions (id, user_id, refresh_hash, expires_at, generation)
select $1, id, $3, $4, token_generation
  from users
 where id = $2
   and is_active
   and token_generation = $5
   for share
returning id
