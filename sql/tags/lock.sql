-- Locks a tag until the transaction ends, and returns it. $1 tag id
select id, name
  from tags
 where id = $1
   for update
