-- the name and the password text of a user; $1 user
select username, password
  from users
 where id = $1
