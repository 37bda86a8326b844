-- the ids of the categories of these names; $1 names
select id
  from categories
 where name = any ($1::text[])
