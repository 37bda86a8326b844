-- makes of the staged rows what they tell: new products, changes of products, tags that are missing; how many of both.
-- Its caller has locked the products in a statement of its own, so that the links seen here are those of the last writer.
with drawn as materialized (
    select coalesce(id, nextval(pg_get_serial_sequence('products', 'id'))) as product_id,
           id is null as is_new, category_id, name, description, price, created_at, tags
      from staged
     order by place
), wanted as materialized (
    select distinct unnest(tags) as name
      from staged
), known as materialized (
    select id, name
      from tags
     where name in (select name from wanted)
       for key share
), made as (
    insert into tags (name)
    select name from wanted except select name from known
     order by name
        -- another writer may have made it a moment ago, after this snapshot
        on conflict (name) do update set created_at = tags.created_at
    returning id, name
), linked as materialized (
    select id, name from known
     union all
    select id, name from made
), created as (
    insert into products (id, category_id, name, description, price, created_at)
    select product_id, category_id, name, description, price::numeric, coalesce(created_at, now())
      from drawn
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
                         from linked
                        where linked.id = product_tags.tag_id
                          and linked.name = any (staged.tags))
), links as (
    insert into product_tags (product_id, tag_id)
    select drawn.product_id, linked.id
      from drawn
     cross join unnest(drawn.tags) as tag (name)
      join linked on linked.name = tag.name
        on conflict do nothing
)
select (select count(*) from created) as created, (select count(*) from updated) as updated
