-- Returns the categories with these names. $1 names
select id, name
  from categories
 where name = any ($1::text[])
