-- ids of category and tags; a second statement would return the names
select p.id, p.name, p.description, p.category_id, p.price::text, p.created_at, pt.tags
  from products p
  left join (select product_id, array_agg(tag_id) as tags from product_tags group by product_id) pt
    on pt.product_id = p.id
 order by p.id;
