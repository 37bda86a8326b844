-- Returns the tags with these names, and whether each has more than a thousand products. $1 names, $2 whether to test the
-- number of products
select id, name, $2 and exists (select from product_tags where tag_id = tags.id offset 1000) as is_frequent
  from tags
 where name = any ($1::text[])
