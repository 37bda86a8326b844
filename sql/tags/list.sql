-- all tags by id
select id, name
  from tags
 order by id
