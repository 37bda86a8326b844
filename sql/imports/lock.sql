-- Locks what staged rows change or refer to until the transaction ends, each kind in the order of its ids: products for
-- update, categories and tags against renaming and deletion. Returns the number of products that exist.
select (select count(*)
          from (select p.id
                  from products p
                  join staged on staged.id = p.id
                 order by p.id
                   for update of p) products) as products,
       (select count(*)
          from (select c.id
                  from categories c
                 where c.id in (select category_id from staged)
                 order by c.id
                   for key share) categories) as categories,
       (select count(*)
          from (select t.id
                  from tags t
                 where t.name in (select unnest(staged.tags) from staged)
                 order by t.id
                   for key share) tags) as tags
