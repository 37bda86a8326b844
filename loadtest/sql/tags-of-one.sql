-- N+1, once per product: the tags
\set id random(1, 100)
select t.name
  from tags t
  join product_tags pt on pt.tag_id = t.id
 where pt.product_id = :id
 order by t.name collate "C";
