-- Returns the products that a range of versions has changed or deleted, ordered by id. The range begins after version $1
-- with token $2, and ends with version $3 with token $4, or with the current one if $3 is null. A product whose category
-- or tag has been renamed has changed; those that have it in the current snapshot count, because the log has the others.
-- Only ids after $5, and at most $6; none if there are more and $7 is false.
--
-- Columns: the current version and its token, `is_known`, `has_more`, the id, and the columns of products/list, which are
-- null if the product was deleted. If `is_known` is false, the log does not reach back to the range, or does not say what
-- changed in it. Without a product there is one row, whose id is null.
--
-- The conditions on categories are comparisons of rows because only the index on (category_id, id) serves them: with an
-- equation, PostgreSQL may read the products in the order of their ids until it has found enough of the category.
--
-- `offset 0` keeps the planner from reading the complete log or table: it does not know how few versions follow $1, and
-- how few products have changed. It would plan each execution again because plans look cheaper with known limits; in a
-- subquery they are unknown to it. Each tag is looked up: as a join the planner reads all tags, once per product.
with changes as materialized (
    select logged.products, logged.categories, logged.tags, logged.everything
      from catalogue_versions versions
     cross join lateral (select products, categories, tags, everything
                           from catalogue_changes
                          where transaction = versions.transaction
                         offset 0) logged
     where versions.version > (select $1::bigint)
       and versions.version <= (select coalesce($3::bigint, 9223372036854775807))
), changed as (
    select unnest(products) as id
      from changes
     union all
    select of_category.id
      from (select distinct unnest(categories) as id from changes) renamed
     cross join lateral (select id
                           from products
                          where (category_id, id) > (renamed.id, $5)
                            and (category_id, id) <= (renamed.id, 9223372036854775807)
                          order by category_id, id
                          limit (select $6::bigint + 1)) of_category
     union all
    select of_tag.product_id
      from (select distinct unnest(tags) as id from changes) renamed
     cross join lateral (select product_id
                           from product_tags
                          where tag_id = renamed.id and product_id > $5
                          order by product_id
                          limit (select $6::bigint + 1)) of_tag
), range as materialized (
    select exists (select from catalogue_versions where version = $1 and token = $2)
           and ($3::bigint is null or exists (select from catalogue_versions where version = $3 and token = $4::uuid))
           and not exists (select from changes where everything) as is_known,
           array(select distinct id from changed where id > $5 order by id limit (select $6::bigint + 1)) as ids
)
select current.version, current.token, range.is_known, cardinality(range.ids) > $6 as has_more,
       changed.id as changed_id, product.*
  from (select version, token from catalogue_versions order by version desc limit 1) current
 cross join range
  left join lateral (select unnest(range.ids[:$6::int]) as id
                      where range.is_known and ($7 or cardinality(range.ids) <= $6)) changed on true
  left join lateral (select p.id, p.name, p.description, c.name as category_name, p.price::text as price, p.created_at,
                            array(select (select tags.name from tags where tags.id = product_tags.tag_id)
                                    from product_tags
                                   where product_tags.product_id = p.id) as tags
                       from products p
                       join categories c on c.id = p.category_id
                      where p.id = changed.id
                     offset 0) product on true
 order by changed.id
