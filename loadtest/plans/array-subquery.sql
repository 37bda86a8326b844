-- one array(...) subquery per product for its tags
select p.id, p.name, p.description, c.name, p.price::text, p.created_at,
       array(select t.name from product_tags pt join tags t on t.id = pt.tag_id
              where pt.product_id = p.id order by t.name collate "C")
  from products p
  join categories c on c.id = p.category_id
 order by p.id;
