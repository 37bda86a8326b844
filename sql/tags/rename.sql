-- Renames a tag; null keeps the name. $1 tag id, $2 name
update tags
   set name = coalesce($2, name)
 where id = $1
returning id, name
