-- Returns the ids of the tags with these names. $1 names
select id
  from tags
 where name = any ($1::text[])
