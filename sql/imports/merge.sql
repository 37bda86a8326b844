-- Applies the staged rows if everything that the import has read is unchanged: inserts new products and missing tags
-- and categories, updates existing products. Returns whether it applied them, and the numbers of created and updated
-- products and of created categories. The caller rolls back if these numbers are not those of the staged rows: another
-- transaction has then inserted one of the categories after this statement's snapshot.
-- $1, $2 version and token of the catalogue before the first read, $3 whether another version is a conflict in itself
--
-- The caller has locked the products that change, their categories and tags in a separate statement, so that the
-- snapshot of this statement shows the latest committed state of all of them.
with unchanged_version as materialized (
    select exists (select
                     from (select version, token
                             from catalogue_versions
                            order by version desc
                            limit 1) newest
                    where version = $1::bigint
                      and token = $2::uuid) as ok
), conflicts as (
    -- a product that was changed, deleted or created since it was read
    select
      from reads
      left join lateral (
          select hashtextextended(row(p.name, p.description, c.name, p.price, p.created_at, linked.tags)::text, 0)
            from products p
            join categories c on c.id = p.category_id
           cross join lateral (select array(select tags.name
                                              from product_tags
                                              join tags on tags.id = product_tags.tag_id
                                             where product_tags.product_id = p.id
                                             order by tags.name collate "C") as tags
                               offset 0) linked
           where p.id = reads.product_id
      ) as stored (digest) on true
     where reads.product_id is not null
       and stored.digest is distinct from reads.digest
     union all
    -- a category that was renamed, deleted or created since it was read
    select
      from reads
      left join categories on categories.name = reads.category_name
     where reads.category_name is not null
       and categories.id is distinct from reads.category_id
), valid as materialized (
    -- with the version unchanged, nothing in the catalogue has changed, and the conflicts are not looked up
    select ok or (not $3::boolean and not exists (select from conflicts)) as ok
      from unchanged_version
), accepted as materialized (
    select position, id, is_new, category_id, new_category, name, description, price, created_at, tags
      from staged
     where (select ok from valid)
), inserted_categories as (
    insert into categories (name)
    select distinct new_category
      from accepted
     where new_category is not null
     order by new_category
        on conflict (name) do nothing
    returning id, name
), numbered as materialized (
    select coalesce(accepted.id, nextval(pg_get_serial_sequence('products', 'id'))) as product_id, accepted.is_new,
           coalesce(accepted.category_id, category.id) as category_id, accepted.name, accepted.description,
           accepted.price, accepted.created_at, accepted.tags
      from accepted
      left join inserted_categories category on category.name = accepted.new_category
     order by accepted.position
), wanted as materialized (
    select distinct unnest(tags) as name
      from accepted
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
       and category_id is not null
    returning id
), updated as (
    update products p
       set name = coalesce(changed.name, p.name),
           description = coalesce(changed.description, p.description),
           price = coalesce(changed.price::numeric, p.price),
           category_id = coalesce(changed.category_id, p.category_id),
           created_at = coalesce(changed.created_at, p.created_at)
      from numbered changed
     where changed.product_id = p.id
       and not changed.is_new
    returning p.id
), unlinked as (
    delete from product_tags
     using accepted
     where product_tags.product_id = accepted.id
       and accepted.tags is not null
       and not exists (select
                         from all_tags
                        where all_tags.id = product_tags.tag_id
                          and all_tags.name = any (accepted.tags))
), linked as (
    insert into product_tags (product_id, tag_id)
    select numbered.product_id, all_tags.id
      from numbered
     cross join unnest(numbered.tags) as tag (name)
      join all_tags on all_tags.name = tag.name
        on conflict do nothing
)
select (select ok from valid) as is_valid,
       (select count(*) from created) as created, (select count(*) from updated) as updated,
       (select count(*) from inserted_categories) as categories_created
