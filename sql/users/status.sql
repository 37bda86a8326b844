-- Returns the state of an account, whether a token or its session is revoked, and the version of the accounts at which
-- both were read. $1 user id, $2 ids of the token and its session
select u.is_active, u.is_staff, u.token_generation, newest.version,
       exists (select from revocations r where r.token_id = any ($2::text[])) as is_revoked
  from users u, (select version from accounts_versions order by version desc limit 1) newest
 where u.id = $1
