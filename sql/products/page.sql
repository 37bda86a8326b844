-- Returns a page of products with the names of their category and tags. `src/products/list/sql.rs` replaces the lines
-- after "page", "links" and "order" to select and order the products; as it stands, the file returns the first
-- hundred.
with page as materialized (
-- page
select p.id, p.category_id, p.name, p.description, p.price, p.created_at
  from products p
 order by p.id
 limit 100
-- end of page
)
select p.id, p.name, p.description, c.name as category_name, p.price::text as price, p.created_at, pt.tags
  from page p
  join categories c on c.id = p.category_id
  left join (
       select product_tags.product_id, array_agg(tags.name) as tags
-- links
         from page
         join product_tags on product_tags.product_id = page.id
-- end of links
         join tags on tags.id = product_tags.tag_id
        group by product_tags.product_id
       ) pt on pt.product_id = p.id
-- order
 order by p.id
