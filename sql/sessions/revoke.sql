-- Deletes a session and revokes its access tokens, given a refresh token that has been replaced. Returns the user; no
-- row when the session does not exist, or when the token is its current one or one that was replaced within the grace:
-- then the session has expired.
-- $1 session, $2 its id in tokens, $3 time at which an access token issued now has expired, $4 SHA-256 of the presented
-- refresh token, $5 the same time for the tokens of a session that does not record it, $6 grace in seconds
with ended as (
    delete from sessions
     where id = $1
       and refresh_hash <> $4
       and not ($6::float8 > 0 and exists (
           select
             from unnest(spent_hashes, spent_at) as spent (hash, replaced_at)
            where spent.hash = $4
              and spent.replaced_at > now() - make_interval(secs => $6)
       ))
    returning user_id, greatest($3, coalesce(access_expires_at, $5)) as expires_at
), revoked as (
    insert into revocations (token_id, expires_at)
    select $2::text, expires_at
      from ended
)
select user_id
  from ended
