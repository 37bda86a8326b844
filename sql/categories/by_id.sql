-- Returns a category. $1 category id
select id, name
  from categories
 where id = $1
