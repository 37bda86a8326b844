-- a new product with its tags, those made that are missing; no row when there is no such category.
-- $1 name, $2 description, $3 price as text, $4 category id or $5 category name, $6 tag names without repetition.
-- Rows that will be referred to are locked first, tags are made in the order of their names, and the version's row comes last,
-- at the commit: writers that keep this order never wait for each other in a circle.
with category as materialized (
    select id, name
      from categories
     where id = $4::bigint
        or name = $5::text
       for key share
), known as materialized (
    select id, name
      from tags
     where name = any ($6::text[])
       for key share
), made as (
    insert into tags (name)
    select wanted.name
      from category, (select unnest($6::text[]) as name except select name from known) wanted
     order by wanted.name
        -- another writer may have made it a moment ago, after this snapshot
        on conflict (name) do update set created_at = tags.created_at
    returning id, name
), linked as (
    select id, name from known
     union all
    select id, name from made
), product as (
    insert into products (category_id, name, description, price)
    select id, $1, $2, $3::text::numeric
      from category
    returning id, name, description, price, created_at
), links as (
    insert into product_tags (product_id, tag_id)
    select product.id, linked.id
      from product, linked
)
select p.id, p.name, p.description, category.name as category_name, p.price::text as price, p.created_at,
       array(select name from linked) as tags
  from product p, category
