-- Applies the staged rows: inserts new products and missing tags, updates existing products. Returns the numbers of
-- created and updated products. The caller has locked the products in a separate statement, so that this one sees the
-- tag links of the latest committed writer.
with numbered as materialized (
    select coalesce(id, nextval(pg_get_serial_sequence('products', 'id'))) as product_id,
           id is null as is_new, category_id, name, description, price, created_at, tags
      from staged
     order by position
), wanted as materialized (
    select distinct unnest(tags) as name
      from staged
), existing_tags as materialized (
    select id, name
      from tags
     where name in (select name from wanted)
       for key share
), inserted_tags as (
    insert into tags (name)
    select name from wanted except select name from existing_tags
     order by name
        -- another transaction may have inserted the tag after this statement's snapshot
        on conflict (name) do update set created_at = tags.created_at
    returning id, name
), all_tags as materialized (
    select id, name from existing_tags
     union all
    select id, name from inserted_tags
), created as (
    insert into products (id, category_id, name, description, price, created_at)
    select product_id, category_id, name, description, price::numeric, coalesce(created_at, now())
      from numbered
     where is_new
    returning id
), updated as (
    update products p
       set name = coalesce(staged.name, p.name),
           description = coalesce(staged.description, p.description),
           price = coalesce(staged.price::numeric, p.price),
           category_id = coalesce(staged.category_id, p.category_id),
           created_at = coalesce(staged.created_at, p.created_at)
      from staged
     where staged.id = p.id
    returning p.id
), unlinked as (
    delete from product_tags
     using staged
     where product_tags.product_id = staged.id
       and staged.tags is not null
       and not exists (select
                         from all_tags
                        where all_tags.id = product_tags.tag_id
                          and all_tags.name = any (staged.tags))
), linked as (
    insert into product_tags (product_id, tag_id)
    select numbered.product_id, all_tags.id
      from numbered
     cross join unnest(numbered.tags) as tag (name)
      join all_tags on all_tags.name = tag.name
        on conflict do nothing
)
select (select count(*) from created) as created, (select count(*) from updated) as updated
