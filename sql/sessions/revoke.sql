-- Deletes a session and revokes its access tokens, given one of its refresh tokens. Returns the user, and whether the
-- presented token was not the current one; no row when the session does not exist.
-- $1 session, $2 its id in tokens, $3 expiry of its last access token, $4 SHA-256 of the presented refresh token,
-- $5 whether this server issued that token: a forged one must not end a session
with ended as (
    delete from sessions
     where id = $1
       and ($5 or refresh_hash = $4)
    returning user_id, refresh_hash <> $4 as is_reused
), revoked as (
    insert into revocations (token_id, expires_at)
    select $2::text, $3::timestamptz
      from ended
)
select user_id, is_reused
  from ended
