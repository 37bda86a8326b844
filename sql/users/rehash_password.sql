-- Stores the same password with the current number of iterations, unless it has changed since it was checked.
-- $1 user id, $2 old stored password, $3 new stored password
update users
   set password = $3
 where id = $1
   and password_of(id) = $2
