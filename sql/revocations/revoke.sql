-- refuses a token and its session from now on; $1 ids of token and session, $2 when the last of its tokens expires,
-- $3 the session whose refresh token dies with it
with ended as (
    delete from sessions
     where id = $3::uuid
)
insert into revocations (token_id, expires_at)
select unnest($1::text[]), $2::timestamptz
