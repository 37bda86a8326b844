-- Updates the given columns of a product, which keeps its tags; null leaves a column unchanged. Returns one row: whether
-- the category was found, and the product (null when it does not exist).
-- $1 product id, $2 name, $3 description, $4 price as text, $5 category id or $6 category name
-- The caller has locked the product in a separate statement, so that this one sees the tag links of the latest
-- committed writer. products/update_with_tags would do the same, but fires the triggers of tags and links, with no rows.
with category as materialized (
    select id, name
      from categories
     where id = $5::bigint
        or name = $6::text
       for key share
), product as (
    update products
       set name = coalesce($2, name),
           description = coalesce($3, description),
           price = coalesce($4::text::numeric, price),
           category_id = coalesce((select id from category), category_id)
     where id = $1
       and (($5 is null and $6 is null) or exists (select from category))
    returning id, category_id, name, description, price, created_at
)
select exists (select from category) as category_found,
       p.id, p.name, p.description, categories.name as category_name, p.price::text as price, p.created_at,
       array(select tags.name
               from product_tags
               join tags on tags.id = product_tags.tag_id
              where product_tags.product_id = p.id) as tags
  from (select) one_row
  left join product p on true
  left join categories on categories.id = p.category_id
