-- another name for a category, or with null the one it has; $1 category, $2 name
update categories
   set name = coalesce($2, name)
 where id = $1
returning id, name
