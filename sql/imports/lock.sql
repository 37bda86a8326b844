-- nobody else writes to the products that staged rows change until this transaction ends; those that are there
select p.id
  from products p
  join staged on staged.id = p.id
 order by p.id
   for update of p
