-- Returns the products with these ids, ordered by id, with the columns of products/list. $1 ids
select p.id, p.name, p.description, c.name as category_name, p.price::text as price, p.created_at,
       array(select tags.name
               from product_tags
               join tags on tags.id = product_tags.tag_id
              where product_tags.product_id = p.id) as tags
  from products p
  join categories c on c.id = p.category_id
 where p.id = any ($1::bigint[])
 order by p.id
