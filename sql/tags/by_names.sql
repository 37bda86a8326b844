-- Returns the tags with these names. $1 names
select id, name
  from tags
 where name = any ($1::text[])
