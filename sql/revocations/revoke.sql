-- Revokes tokens and sessions, and deletes a session. $1 ids of token and session, $2 expiry of the session's last
-- access token, $3 session whose refresh token becomes invalid
with ended as (
    delete from sessions
     where id = $3::uuid
)
insert into revocations (token_id, expires_at)
select unnest($1::text[]), $2::timestamptz
