-- one tag; $1 tag
select id, name
  from tags
 where id = $1
