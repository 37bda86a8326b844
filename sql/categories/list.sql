-- Returns all categories, ordered by id.
select id, name
  from categories
 order by id
