-- what an account may do, and the version of `accounts` at which this was so; $1 user
select u.is_active, u.is_staff, u.token_generation, v.version
  from users u, versions v
 where u.id = $1
   and v.name = 'accounts'
