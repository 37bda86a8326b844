-- ids of category and tags; all names once, in the first row
select p.id, p.name, p.description, p.category_id, p.price::text, p.created_at, pt.tags,
       case when row_number() over (order by p.id) = 1
            then (select json_object_agg(id, name)::text from categories) end,
       case when row_number() over (order by p.id) = 1 then (select json_object_agg(id, name)::text from tags) end
  from products p
  left join (select product_id, array_agg(tag_id) as tags from product_tags group by product_id) pt
    on pt.product_id = p.id
 order by p.id;
