-- Returns a product with the names of its category and tags. $1 product id
select p.id, p.name, p.description, c.name as category_name, p.price::text as price, p.created_at,
       array(select tags.name
               from product_tags
               join tags on tags.id = product_tags.tag_id
              where product_tags.product_id = p.id) as tags
  from products p
  join categories c on c.id = p.category_id
 where p.id = $1
