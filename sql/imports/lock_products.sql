-- Locks the products with these ids until the transaction ends. Returns their number. $1 ids
select count(*)
  from (select id
          from products
         where id = any ($1::bigint[])
         order by id
           for update) locked
