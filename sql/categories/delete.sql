-- Deletes a category unless products use it. Returns one row: how many products use it, and whether it was deleted.
-- $1 category id
with used as materialized (
    select count(*) as products
      from products
     where category_id = $1
), deleted as (
    delete from categories
     where id = $1
       and (select products from used) = 0
    returning id
)
select used.products, exists (select from deleted) as is_deleted
  from used
