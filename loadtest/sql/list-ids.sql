-- N+1, the first statement: products without names of categories and tags
select id, category_id, name, description, price, created_at from products order by id;
