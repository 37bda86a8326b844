-- ends a session and every access token of it, if it is still there; $1 session, $2 its name in tokens,
-- $3 when the last of its tokens expires
with ended as (
    delete from sessions
     where id = $1
    returning id
)
insert into revocations (token_id, expires_at)
select $2::text, $3::timestamptz
  from ended
