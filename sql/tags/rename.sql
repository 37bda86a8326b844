-- another name for a tag, or with null the one it has; $1 tag, $2 name
update tags
   set name = coalesce($2, name)
 where id = $1
returning id, name
