-- the name and the password text of a user; $1 user
select username, password_of(id)
  from users
 where id = $1
