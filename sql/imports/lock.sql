-- Locks the products that staged rows change until the transaction ends. Returns the ids that exist.
select p.id
  from products p
  join staged on staged.id = p.id
 order by p.id
   for update of p
