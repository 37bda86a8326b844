-- the complete list as one JSON text built by PostgreSQL
select json_agg(
         json_build_object('id', p.id, 'name', p.name, 'description', p.description, 'category_name', c.name,
                           'price', p.price, 'created_at', p.created_at, 'tags', coalesce(pt.tags, '[]'))
         order by p.id)::text
  from products p
  join categories c on c.id = p.category_id
  left join (select pt.product_id, json_agg(t.name order by t.name collate "C") as tags
               from product_tags pt join tags t on t.id = pt.tag_id
              group by pt.product_id) pt on pt.product_id = p.id;
