-- nobody else writes to this product until this transaction ends; $1 product
select id
  from products
 where id = $1
   for update
