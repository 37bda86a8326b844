-- the same password with more iterations, unless it was changed meanwhile; $1 user, $2 old text, $3 new text
update users
   set password = $3
 where id = $1
   and password_of(id) = $2
