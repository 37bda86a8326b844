-- no other write to the catalogue commits until this transaction ends
select version
  from versions
 where name = 'catalogue'
   for update
