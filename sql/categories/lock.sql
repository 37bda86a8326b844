-- Locks a category until the transaction ends, and returns it. $1 category id
select id, name
  from categories
 where id = $1
   for update
