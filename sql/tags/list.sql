-- Returns all tags, ordered by id.
select id, name
  from tags
 order by id
