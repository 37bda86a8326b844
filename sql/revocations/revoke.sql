-- Revokes tokens and sessions, and deletes a session. $1 ids of token and session, $2 time at which the presented
-- access token and one issued now have expired, $3 session whose refresh token becomes invalid, $4 the same time for
-- the tokens of a session that does not record it
with ended as (
    delete from sessions
     where id = $3::uuid
    returning coalesce(access_expires_at, $4) as expires_at
)
insert into revocations (token_id, expires_at)
select unnest($1::text[]), greatest($2::timestamptz, (select expires_at from ended))
