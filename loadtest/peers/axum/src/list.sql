select p.id, p.name, p.description, c.name as category_name, p.price::float8 as price, p.created_at,
       coalesce(array_agg(t.name order by t.name collate "C") filter (where t.id is not null), '{}') as tags
  from products p
  join categories c on c.id = p.category_id
  left join product_tags pt on pt.product_id = p.id
  left join tags t on t.id = pt.tag_id
 group by p.id, c.name
 order by p.id
