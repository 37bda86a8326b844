-- Returns the products with these ids, ordered by id, with the columns of products/list. $1 ids
--
-- Each tag is looked up: as a join the planner reads all tags, once per product. The number of ids is unknown to the
-- planner, so it keeps one plan, which is for few.
select p.id, p.name, p.description, c.name as category_name, p.price::text as price, p.created_at,
       array(select (select tags.name from tags where tags.id = product_tags.tag_id)
               from product_tags
              where product_tags.product_id = p.id) as tags
  from products p
  join categories c on c.id = p.category_id
 where p.id = any ((select $1::bigint[])::bigint[])
 order by p.id
