-- Returns the state of an account, and the version of `accounts` at which it was read. $1 user id
select u.is_active, u.is_staff, u.token_generation, v.version
  from users u, versions v
 where u.id = $1
   and v.name = 'accounts'
