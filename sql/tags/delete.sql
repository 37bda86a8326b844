-- one tag; it comes off its products; $1 tag
delete from tags
 where id = $1
returning id
