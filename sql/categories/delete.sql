-- one category, unless products use it; always one row: how many use it, and whether it is gone; $1 category
with used as materialized (
    select count(*) as products
      from products
     where category_id = $1
), gone as (
    delete from categories
     where id = $1
       and (select products from used) = 0
    returning id
)
select used.products, exists (select from gone) as gone
  from used
