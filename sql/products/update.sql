-- writes the columns that are given, and the tags if they are given; always one row, its first column telling
-- whether the category was found, the others null when there is no such product.
-- $1 product, $2 name, $3 description, $4 price as text, $5 category id or $6 category name, $7 tag names without
-- repetition; null: stays as it is. Its caller has locked the product in a statement of its own, so that the links
-- seen here are those of the last writer.
with category as materialized (
    select id, name
      from categories
     where id = $5::bigint
        or name = $6::text
       for key share
), known as materialized (
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
), made as (
    insert into tags (name)
    select wanted.name
      from product, (select unnest($7::text[]) as name except select name from known) wanted
     order by wanted.name
        on conflict (name) do update set created_at = tags.created_at
    returning id, name
), linked as (
    select id, name from known
     union all
    select id, name from made
), unlinked as (
    delete from product_tags
     using product
     where product_tags.product_id = product.id
       and $7::text[] is not null
       and product_tags.tag_id not in (select id from linked)
), links as (
    insert into product_tags (product_id, tag_id)
    select product.id, linked.id
      from product, linked
        on conflict do nothing
)
select exists (select from category) as category_found,
       p.id, p.name, p.description, categories.name as category_name, p.price::text as price, p.created_at,
       case when $7::text[] is not null
            then array(select name from linked)
            else array(select tags.name
                         from product_tags
                         join tags on tags.id = product_tags.tag_id
                        where product_tags.product_id = p.id)
       end as tags
  from (select) always
  left join product p on true
  left join categories on categories.id = p.category_id
