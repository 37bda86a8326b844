-- all tables joined, then grouped by product
select p.id, p.name, p.description, c.name, p.price::text, p.created_at,
       array_agg(t.name order by t.name collate "C") filter (where t.id is not null)
  from products p
  join categories c on c.id = p.category_id
  left join product_tags pt on pt.product_id = p.id
  left join tags t on t.id = pt.tag_id
 group by p.id, c.id
 order by p.id;
