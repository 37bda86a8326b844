-- Returns the categories with these names, and records what was read. $1 names
with found as materialized (
    select id, name
      from categories
     where name = any ($1::text[])
), recorded as (
    insert into reads (category_name, category_id)
    select requested.name, found.id
      from unnest($1::text[]) as requested (name)
      left join found on found.name = requested.name
)
select id, name
  from found
