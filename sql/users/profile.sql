-- Returns an account as its owner sees it. $1 user id
select id, username, email, is_staff, date_joined
  from users
 where id = $1
