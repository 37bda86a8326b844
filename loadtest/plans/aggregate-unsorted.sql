-- the tags of all products aggregated once, unsorted (the server sorts the few tags of a product), then joined
select p.id, p.name, p.description, c.name, p.price::text, p.created_at, pt.tags
  from products p
  join categories c on c.id = p.category_id
  left join (select pt.product_id, array_agg(t.name) as tags
               from product_tags pt join tags t on t.id = pt.tag_id
              group by pt.product_id) pt on pt.product_id = p.id
 order by p.id;
