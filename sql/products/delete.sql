-- Deletes a product and its links to tags. $1 product id
delete from products
 where id = $1
returning id
