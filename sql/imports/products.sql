-- Returns the products with these ids, unordered, with the names of their category and tags, and records what was read.
-- sql/imports/merge.sql computes the same digest. $1 ids
with found as materialized (
    select p.id, p.name, p.description, c.name as category_name, p.price::text as price, p.created_at, linked.tags,
           hashtextextended(row(p.name, p.description, c.name, p.price, p.created_at, linked.tags)::text, 0) as digest
      from products p
      join categories c on c.id = p.category_id
     cross join lateral (select array(select tags.name
                                        from product_tags
                                        join tags on tags.id = product_tags.tag_id
                                       where product_tags.product_id = p.id
                                       order by tags.name collate "C") as tags
                         -- computes the array once
                         offset 0) linked
     where p.id = any ($1::bigint[])
), recorded as (
    insert into reads (product_id, digest)
    select requested.id, found.digest
      from unnest($1::bigint[]) as requested (id)
      left join found on found.id = requested.id
)
select id, name, description, category_name, price, created_at, tags
  from found
