-- one product and its links to tags; $1 product
delete from products
 where id = $1
returning id
