-- an account as its owner sees it; $1 user
select id, username, email, is_staff, date_joined
  from users
 where id = $1
