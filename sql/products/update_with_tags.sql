-- Replaces the tags of a product, and updates the given columns; null leaves a column unchanged. Returns the same row
-- as products/update.
-- $1 product id, $2 name, $3 description, $4 price as text, $5 category id or $6 category name, $7 distinct tag names
-- The caller has locked the product in a separate statement, so that this one sees the tag links of the latest
-- committed writer.
with category as materialized (
    select id, name
      from categories
     where id = $5::bigint
        or name = $6::text
       for key share
), existing_tags as materialized (
    select id, name
      from tags
     where name = any ($7::text[])
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
), inserted_tags as (
    insert into tags (name)
    select wanted.name
      from product, (select unnest($7::text[]) as name except select name from existing_tags) wanted
     order by wanted.name
        -- another transaction may have inserted the tag after this statement's snapshot
        on conflict (name) do update set created_at = tags.created_at
    returning id, name
), all_tags as (
    select id, name from existing_tags
     union all
    select id, name from inserted_tags
), unlinked as (
    delete from product_tags
     using product
     where product_tags.product_id = product.id
       and product_tags.tag_id not in (select id from all_tags)
), linked as (
    insert into product_tags (product_id, tag_id)
    select product.id, all_tags.id
      from product, all_tags
        on conflict do nothing
)
select exists (select from category) as category_found,
       p.id, p.name, p.description, categories.name as category_name, p.price::text as price, p.created_at,
       array(select name from all_tags) as tags
  from (select) one_row
  left join product p on true
  left join categories on categories.id = p.category_id
