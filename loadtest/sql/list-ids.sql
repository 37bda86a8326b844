-- half of N+1: the products alone, with the ids that the other half asks for one by one
select id, category_id, name, description, price, created_at from products order by id;
