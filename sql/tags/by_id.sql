-- Returns a tag. $1 tag id
select id, name
  from tags
 where id = $1
