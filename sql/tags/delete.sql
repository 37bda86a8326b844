-- Deletes a tag and its links to products. $1 tag id
delete from tags
 where id = $1
returning id
