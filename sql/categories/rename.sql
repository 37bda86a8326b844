-- Renames a category; null keeps the name. $1 category id, $2 name
update categories
   set name = coalesce($2, name)
 where id = $1
returning id, name
