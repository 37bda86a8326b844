-- all categories by id
select id, name
  from categories
 order by id
