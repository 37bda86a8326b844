-- Returns the state of an account, whether a token or its session is revoked, and the version of `accounts` at which
-- both were read. $1 user id, $2 ids of the token and its session
select u.is_active, u.is_staff, u.token_generation, v.version,
       exists (select from revocations r where r.token_id = any ($2::text[])) as is_revoked
  from users u, versions v
 where u.id = $1
   and v.name = 'accounts'
