-- nobody else writes to the catalogue until this transaction ends
select version
  from versions
 where name = 'catalogue'
   for update
