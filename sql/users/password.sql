-- Returns the username and the stored password of a user. $1 user id
select username, password_of(id) as password
  from users
 where id = $1
