-- N+1, once per product: the category
\set id random(1, 100)
select c.name from products p join categories c on c.id = p.category_id where p.id = :id;
