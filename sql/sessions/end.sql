-- ends a session and every access token of it, if it is still there; $1 session, $2 its name in tokens,
-- $3 when the last of its tokens expires, $4 SHA-256 of the refresh token that was presented, $5 whether we have issued
-- that one: what somebody made up ends nothing; returns its user, and whether that token was another than the one in force
with ended as (
    delete from sessions
     where id = $1
       and ($5 or refresh_hash = $4)
    returning user_id, refresh_hash <> $4 as copied
), revoked as (
    insert into revocations (token_id, expires_at)
    select $2::text, $3::timestamptz
      from ended
)
select user_id, copied
  from ended
