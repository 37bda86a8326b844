-- Inserts a product with its tags, and tags that do not exist yet. Returns no row when the category does not exist.
-- $1 name, $2 description, $3 price as text, $4 category id or $5 category name, $6 distinct tag names
-- Lock order prevents deadlocks: first the referenced rows, then tags in name order, and the commit lock last, at the
-- commit. Every writer keeps this order.
with category as materialized (
    select id, name
      from categories
     where id = $4::bigint
        or name = $5::text
       for key share
), existing_tags as materialized (
    select id, name
      from tags
     where name = any ($6::text[])
       for key share
), inserted_tags as (
    insert into tags (name)
    select wanted.name
      from category, (select unnest($6::text[]) as name except select name from existing_tags) wanted
     order by wanted.name
        -- another transaction may have inserted the tag after this statement's snapshot
        on conflict (name) do update set created_at = tags.created_at
    returning id, name
), all_tags as (
    select id, name from existing_tags
     union all
    select id, name from inserted_tags
), product as (
    insert into products (category_id, name, description, price)
    select id, $1, $2, $3::text::numeric
      from category
    returning id, name, description, price, created_at
), linked as (
    insert into product_tags (product_id, tag_id)
    select product.id, all_tags.id
      from product, all_tags
)
select p.id, p.name, p.description, category.name as category_name, p.price::text as price, p.created_at,
       array(select name from all_tags) as tags
  from product p, category
