-- Creates a session, unless the account has changed since its password was checked, and trusts the client's address. An
-- account has at most 32 trusted addresses: a new one replaces the one with the oldest login.
-- $1 id, $2 user id, $3 SHA-256 of the refresh token, $4 its expiry, $5 token generation of the user, $6 time at which
-- its access tokens have expired, $7 MAC of the client's address or null
with account as (
    select id, token_generation
      from users
     where id = $2
       and is_active
       and token_generation = $5
       for share
), address as (
    select id as user_id, sha256($7::bytea || int8send(id)) as digest
      from account
     where $7 is not null
), replaced as (
    delete from trusted_addresses t
     using (
         select other.user_id, other.digest
           from address
           join trusted_addresses other using (user_id)
          where other.digest <> address.digest
          order by other.last_login_at desc
         offset 31
     ) oldest
     where t.user_id = oldest.user_id
       and t.digest = oldest.digest
), trusted as (
    insert into trusted_addresses (user_id, digest)
    select user_id, digest
      from address
        on conflict (user_id, digest) do update set last_login_at = now()
)
insert into sessions (id, user_id, refresh_hash, expires_at, token_generation, access_expires_at)
select $1, id, $3, $4, token_generation, $6
  from account
returning id
