-- Locks a product until the transaction ends. $1 product id
select id
  from products
 where id = $1
   for update
