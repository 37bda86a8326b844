-- Returns the catalogue's version in the current snapshot; rows read in the same snapshot are cached under it.
select version, token
  from catalogue_versions
 order by version desc
 limit 1
