-- Returns all products with the names of their category and tags, ordered by id. Tags are unordered: the caller sorts
-- the few tags of a product, which is cheaper than sorting here (measured by loadtest/plans).
select p.id, p.name, p.description, c.name as category_name, p.price::text as price, p.created_at, pt.tags
  from products p
  join categories c on c.id = p.category_id
  left join (
       select product_tags.product_id, array_agg(tags.name) as tags
         from product_tags
         join tags on tags.id = product_tags.tag_id
        group by product_tags.product_id
       ) pt on pt.product_id = p.id
 order by p.id
