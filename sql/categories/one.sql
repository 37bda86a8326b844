-- one category; $1 category
select id, name
  from categories
 where id = $1
