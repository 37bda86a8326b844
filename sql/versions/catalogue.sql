-- Returns the catalogue's version in the current snapshot; rows read in the same snapshot are cached under it.
select version, token, changed_at
  from versions
 where name = 'catalogue'
